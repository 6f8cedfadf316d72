"""Measure what a preview at each step costs a large model on a CUDA device, and whether it ever
waits.

    python benchmarks/preview_cuda.py
    python benchmarks/preview_cuda.py --device cpu --tiny --repetitions 1    a rehearsal

The UNet of SDXL with random weights, in bfloat16, on latents of 128 by 128 with classifier-free
guidance; writes docs/benchmarks/preview_cuda-torch.json. Takes about four minutes on a GPU that
does a step in 60 ms. Without CUDA it ends with exit code 2. A rehearsal writes where --out says.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import numpy as np
import torch
from _common import RESULTS, Figure, figure, interleaved, parser, progress, write
from _frameworks import Torch
from _loop import Timed, denoising_loop
from preview_cost import GUIDE_BIASES, GUIDE_WEIGHTS
from torch.profiler import ProfilerActivity, profile, record_function

from unicb import Preview, bind
from unicb.latents import builtin_formats

TITLE = "What a preview costs on a GPU"
METHOD = """\
The UNet of SDXL, built from its configuration with random weights, in bfloat16, called once a step
on a batch of 2 (classifier-free guidance) by a loop with the Euler scheduler. One PNG file for each
step from unicb's `Preview` as it is by default, and from the function in diffusers' guide to
callbacks ("Display image after each generation step"). All run in turn in every round; a run is
timed from an idle device until the device is idle again and all files are written.

- **added to a step** is the share of the time of the run without previews, in the same round.
- **in the callback** is the median time on the loop's thread of all steps but the first and the
  last.
- **waits** are calls of the CUDA runtime on the loop's thread, from the first step to the end of
  the last, that wait for the device: synchronisations of a stream, an event or the device, and
  copies that are not asynchronous. They are counted in a trace of 6 steps by `torch.profiler`.
- **stopped** says whether a run was disturbed by `torch.cuda.set_sync_debug_mode("error")`, which
  makes torch raise where it would wait.
- **differing numbers** are those in the finished latents that are not the same bits as without
  previews.
"""
MARK = "the denoising loop"
SHARE_AT_MOST = 0.5

#: A trace has tens of thousands of events for each step of a large model.
TRACED_STEPS = 6

#: Of stabilityai/stable-diffusion-xl-base-1.0, unet/config.json.
SDXL: Mapping[str, Any] = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 2,
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
TINY: Mapping[str, Any] = {
    **SDXL,
    "sample_size": 16,
    "block_out_channels": (8, 16, 16),
    "layers_per_block": 1,
    "transformer_layers_per_block": 1,
    "attention_head_dim": 2,
    "cross_attention_dim": 16,
    "norm_num_groups": 4,
    "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": 40,
}


class Run(NamedTuple):
    """A run holds its seconds and those of each of its callbacks, its files, and the finished
    latents."""

    whole: float
    callback: list[float]
    written: int
    latents: torch.Tensor


class Model:
    """A UNet with random weights in a denoising loop.

    Args:
        config: of the UNet.
        device: where it is.
        steps: of a run.
    """

    def __init__(self, config: Mapping[str, Any], device: str, steps: int) -> None:
        torch.manual_seed(0)
        self.case = "SDXL's UNet" if config is SDXL else "a tiny UNet"
        self._device, self.steps = torch.device(device), steps
        usual = torch.get_default_dtype()
        torch.set_default_dtype(torch.bfloat16)
        try:
            with self._device:
                unet = diffusers.UNet2DConditionModel(in_channels=4, out_channels=4, **config)
                size, width = config["sample_size"], config["cross_attention_dim"]
                ids = config["addition_time_embed_dim"]
                pooled = config["projection_class_embeddings_input_dim"] - 6 * ids
                embeds = torch.randn(2, 77, width)
                conditions = {"text_embeds": torch.randn(2, pooled), "time_ids": torch.ones(2, 6)}
                noise = torch.randn(1, 4, size, size)
        finally:
            torch.set_default_dtype(usual)
        unet.eval().requires_grad_(False)
        self._scheduler = diffusers.EulerDiscreteScheduler(
            beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1
        )
        self._scheduler.set_timesteps(steps)
        self._noise = noise * self._scheduler.init_noise_sigma.to(noise)

        def denoise(scaled: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                both = unet(
                    torch.cat([scaled, scaled]),
                    t,
                    encoder_hidden_states=embeds,
                    added_cond_kwargs=conditions,
                    return_dict=False,
                )[0]
            uncond, cond = both.chunk(2)
            return uncond + 5.0 * (cond - uncond)

        self.pipeline = denoising_loop(diffusers, self._scheduler, denoise)

    def idle(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def prepare(self, steps: int | None = None) -> None:
        """Do what a pipeline does before its loop, and what waits for the device there."""
        self._scheduler.set_timesteps(steps or self.steps, device=self._device)
        self._scheduler.set_begin_index(0)  # else it searches the device for its first timestep
        self.idle()

    def loop(self, **callbacks: Any) -> torch.Tensor:
        latents: torch.Tensor = self.pipeline(self._noise, self._scheduler.timesteps, **callbacks)
        return latents


Bound = Callable[[Model, Path], dict[str, Any]]


def nothing(model: Model, folder: Path) -> dict[str, Any]:
    return {}


def unicb(model: Model, folder: Path) -> dict[str, Any]:
    preview = Preview(folder / "{step}.png", factors=builtin_formats()["sdxl"])
    return dict(bind(model.pipeline, preview))


def guide(model: Model, folder: Path) -> dict[str, Any]:
    fw = Torch()

    def decode(pipeline: Any, step: int, timestep: Any, tensors: Any) -> Any:
        image = fw.latents_to_rgb(tensors["latents"], GUIDE_WEIGHTS, GUIDE_BIASES)
        image.save(folder / f"{step}.png")
        return tensors

    return {"callback_on_step_end": decode}


WAYS: Mapping[str, Bound] = {"no previews": nothing, "unicb": unicb, "guide": guide}


def run(model: Model, way: Bound) -> Run:
    """Make one run, timed."""
    with tempfile.TemporaryDirectory() as name:
        keywords = way(model, Path(name))
        timed = Timed(keywords["callback_on_step_end"]) if keywords else None
        if timed is not None:
            keywords["callback_on_step_end"] = timed
        model.prepare()
        began = time.perf_counter()
        latents = model.loop(**keywords)
        model.idle()
        whole = time.perf_counter() - began
        written = len(list(Path(name).glob("*.png")))
    return Run(whole, [] if timed is None else timed.seconds, written, latents)


def measure(model: Model, repetitions: int) -> list[Figure]:
    """Time, and whether the latents are the same."""
    contestants = {name: partial(run, model, way) for name, way in WAYS.items()}
    runs = interleaved(contestants, repetitions, model.case)
    bare = runs["no previews"]
    expected = bare[0].latents
    if not bool(torch.isfinite(expected).all()):
        raise SystemExit("the random weights gave latents that are not finite: nothing is proven")
    figures = []
    for name, at_most in (("unicb", SHARE_AT_MOST), ("guide", None)):
        pairs = zip(runs[name], bare, strict=True)
        shares = [100 * (with_it.whole / without.whole - 1) for with_it, without in pairs]
        figures.append(figure(model.case, f"{name}: added to a step", "%", shares, at_most))
    for name, found in runs.items():
        steps = [1e3 * one.whole / model.steps for one in found]
        figures.append(figure(model.case, f"{name}: a step", "ms", steps))
    for name in ("unicb", "guide"):
        inside = [1e3 * float(np.median(one.callback[1:-1])) for one in runs[name]]
        figures.append(figure(model.case, f"{name}: in the callback", "ms", inside))
        missing = [model.steps - one.written for one in runs[name]]
        figures.append(figure(model.case, f"{name}: missing files", "count", missing, 0))
    for name, found in runs.items():
        differing = [differing_numbers(one.latents, expected) for one in found]
        figures.append(figure(model.case, f"{name}: differing numbers", "count", differing, 0))
    return figures


def differing_numbers(a: torch.Tensor, b: torch.Tensor) -> int:
    """Count the elements of two tensors that are not the same bits."""
    return int((a.view(torch.int16) != b.view(torch.int16)).sum())


def waits(trace: Mapping[str, Any]) -> tuple[Counter[str], Counter[str]]:
    """Return the calls of the CUDA runtime that wait for the device, by name, in a trace of
    torch.profiler.

    Returns:
        Those of the thread that runs the loop, while it does, and those of all others.

    Raises:
        ValueError: the trace has no mark of the loop.
    """
    events = [event for event in trace["traceEvents"] if event.get("ph") == "X"]
    marks = [e for e in events if e["name"] == MARK and e.get("cat") == "user_annotation"]
    if len(marks) != 1:
        raise ValueError(f"the trace has {len(marks)} marks of the loop, not one")
    mark = marks[0]
    end = mark["ts"] + mark["dur"]
    loop: Counter[str] = Counter()
    others: Counter[str] = Counter()
    for event in events:
        runtime = event.get("cat") in ("cuda_runtime", "cuda_driver")
        if not runtime or not mark["ts"] <= event["ts"] <= end:
            continue
        counted = loop if event["tid"] == mark["tid"] else others
        counted[event["name"]] += 1
    return loop, others


def is_wait(name: str) -> bool:
    return "Synchronize" in name or ("Memcpy" in name and "Async" not in name)


def traced(model: Model, way: Bound, cuda: bool) -> tuple[Counter[str], Counter[str]]:
    """Return :func:`waits` and all other calls of the runtime, of one run."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with tempfile.TemporaryDirectory() as name:
        keywords = way(model, Path(name))
        model.prepare(TRACED_STEPS)
        with profile(activities=activities) as profiler:
            with record_function(MARK):
                model.loop(**keywords)
            model.idle()
        path = Path(name, "trace.json")
        profiler.export_chrome_trace(str(path))
        loop, others = waits(json.loads(path.read_text(encoding="utf-8")))
    if cuda and not any("Launch" in call for call in loop):
        raise SystemExit("the trace does not tell which thread launches kernels: nothing is proven")
    return loop, others


def count_waits(model: Model, cuda: bool) -> tuple[list[Figure], list[str]]:
    """Count the waits of each way, and say which they are."""
    figures, notes = [], []
    counts: dict[str, int] = {}
    for done, (name, way) in enumerate(WAYS.items()):
        progress("traces", done, len(WAYS))
        loop, others = traced(model, way, cuda)
        waited = {call: count for call, count in loop.items() if is_wait(call)}
        counts[name] = sum(waited.values())
        copies = sum(count for call, count in loop.items() if "Memcpy" in call)
        aside = sum(count for call, count in others.items() if is_wait(call))
        figures.append(figure(model.case, f"{name}: waits", "count", [counts[name]]))
        names = ", ".join(f"{count} {call}" for call, count in waited.items()) or "none"
        notes.append(
            f"{name}: waits on the loop's thread: {names}; {copies} copies there; "
            f"{aside} waits on other threads"
        )
    progress("traces", len(WAYS), len(WAYS))
    more = counts["unicb"] - counts["no previews"]
    return [
        figure(model.case, "unicb: waits beyond the loop's own", "count", [more], 0),
        *figures,
    ], notes


def stopped(model: Model, way: Bound) -> str:
    """Return what torch says to a run that must not wait for the device; empty if nothing.

    An error inside of a preview is a warning; its further files are missing then.
    """
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        keywords = way(model, Path(name))
        model.prepare()
        torch.cuda.set_sync_debug_mode("error")
        try:
            model.loop(**keywords)
        except RuntimeError as error:
            return str(error)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        model.idle()
        written = len(list(Path(name).glob("*.png")))
    messages = [str(warning.message) for warning in caught if warning.category is RuntimeWarning]
    if not messages and keywords and written != model.steps:
        messages = [f"only {written} of {model.steps} files"]
    return "; ".join(messages)


def check_debug_mode(model: Model) -> tuple[list[Figure], list[str]]:
    figures, notes = [], []
    for name, way in WAYS.items():
        stops = " ".join(stopped(model, way).split())
        target = None if name == "guide" else 0
        figures.append(figure(model.case, f"{name}: stopped", "count", [bool(stops)], target))
        if stops:
            notes.append(f"{name}: with set_sync_debug_mode: {stops[:300]}")
    return figures, notes


def main(arguments: Sequence[str] | None = None) -> int:
    made = parser(__doc__, ["torch"])
    made.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="default: cuda")
    made.add_argument("--tiny", action="store_true", help="a tiny model, to try the script")
    made.add_argument("--steps", type=int, default=30, help="of a run, from 3; default: 30")
    options = made.parse_args(arguments)
    if options.steps < 3:
        made.error("--steps must be at least 3: the first and the last are not counted")
    cuda = options.device == "cuda"
    if cuda and not torch.cuda.is_available():
        print(
            "no CUDA device: nothing was measured (--device cpu --tiny rehearses)", file=sys.stderr
        )
        return 2
    model = Model(TINY if options.tiny else SDXL, options.device, options.steps)
    figures = measure(model, options.repetitions)
    counted, notes = count_waits(model, cuda)
    figures += counted
    if cuda:
        checked, more = check_debug_mode(model)
        figures, notes = [*figures, *checked], [*notes, *more]
    hardware = {"device": options.device}
    if cuda:
        hardware = {"device": torch.cuda.get_device_name(), "cuda": str(torch.version.cuda)}
    settings = {"steps": options.steps, "rounds": options.repetitions}
    out = None if not cuda and options.out == RESULTS else options.out
    write(
        out, "preview_cuda", TITLE, METHOD, "torch", settings, figures,
        hardware=hardware, notes=notes,
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
