"""Measure what cutting guidance saves large models on a CUDA device, and show that no callback
waits for it.

    python benchmarks/guidance_cuda.py
    python benchmarks/guidance_cuda.py --device cpu --models "SDXL, tiny" "FLUX, tiny" \
        --steps 5 --repetitions 1 --out rehearsal        a rehearsal

The UNet of SDXL and the transformer of FLUX.1 with random weights, in bfloat16, for one picture and
for four; writes docs/benchmarks/guidance_cuda-torch.json. Needs 40 GB of the device's memory, and
should take about seven minutes on one that computes a row of FLUX in 60 ms. Without CUDA it ends
with exit code 2. A rehearsal writes where --out says.
"""

from __future__ import annotations

import gc
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from _common import RESULTS, Figure, figure, interleaved, parser, write
from _frameworks import Torch
from _loop import Timed
from _pipelines import FLUX, Untrained, flux, sdxl_unet, stable_diffusion_xl
from cut_saving import AT_MOST, GUIDANCE, RATIO, compared, guided_steps, share_of_rows

from unicb import Callback, CFGCutoff, GuidanceSchedule, Preview, Step, bind
from unicb.callbacks import linear
from unicb.latents import builtin_formats

TITLE = "What the cut saves on a GPU"
METHOD = """\
`StableDiffusionXLPipeline` (Euler, latents of 128 by 128) and `FluxPipeline` (flow matching, true
CFG, 1024 tokens of a picture) with the UNet of SDXL and the transformer of FLUX.1, built from their
configurations with random weights, in bfloat16. All ways run in turn in every round; a run is timed
whole, from `bind` until its latents are on the host.

- **rows**, **cut**, **needed** and **cut, to what is needed** are as in "What the cut saves", with
  `CFGCutoff(0.4)`.
- **added** is the share of the time of the run without callbacks, in the same round: by a `Preview`
  to a callable at every step, and by a `GuidanceSchedule` from 6 to 4.
- **on the loop's thread** is the median time inside the callback: that of three bound callbacks
  that do nothing, and of a plain function that does nothing.
- **stopped** says whether a run was disturbed by `torch.cuda.set_sync_debug_mode("error")`, which
  makes torch raise where it would wait for the device, from the first call of the denoiser to the
  end of the pipeline's call.
"""
#: Enough of a run for what is not timed as a whole.
FEW_STEPS = 6
PREVIEW_AT_MOST = 0.5
MACHINERY_AT_MOST_US = 15.0


class TorchOn(Torch):
    """torch on a device, in a number format."""

    def __init__(self, device: str, dtype: torch.dtype) -> None:
        super().__init__()
        self._device, self._dtype = torch.device(device), dtype

    def tensor(self, array: npt.NDArray[Any]) -> torch.Tensor:
        return torch.tensor(array, dtype=self._dtype, device=self._device)

    def model(self, class_name: str, **config: Any) -> Any:
        usual = torch.get_default_dtype()
        torch.set_default_dtype(self._dtype)
        try:
            with self._device:
                return super().model(class_name, **config)
        finally:
            torch.set_default_dtype(usual)


class Model(NamedTuple):
    """Make a pipeline for so many pictures; say which format its latents have."""

    make: Callable[[TorchOn, int], Untrained]
    form: str


_TINY_FLUX = {
    "num_layers": 1,
    "num_single_layers": 1,
    "attention_head_dim": 8,
    "num_attention_heads": 2,
    "joint_attention_dim": 16,
    "pooled_projection_dim": 8,
    "axes_dims_rope": (2, 2, 4),
}
MODELS: Mapping[str, Model] = {
    "SDXL": Model(lambda fw, n: stable_diffusion_xl(fw, sdxl_unet(320), 128, n), "sdxl"),
    "FLUX": Model(lambda fw, n: flux(fw, FLUX, 64, n), "flux"),
    # To try the script.
    "SDXL, tiny": Model(
        lambda fw, n: stable_diffusion_xl(fw, sdxl_unet(8, transformer_layers_per_block=1), 8, n),
        "sdxl",
    ),
    "FLUX, tiny": Model(lambda fw, n: flux(fw, {**FLUX, **_TINY_FLUX}, 8, n), "flux"),
}


class Nothing(Callback):
    def on_step_end(self, step: Step) -> None:
        pass


def nothing(_: Any, __: int, ___: Any, tensors: dict[str, Any]) -> dict[str, Any]:
    return tensors


class Run(NamedTuple):
    """A run holds its seconds, those of each of its callbacks where they were timed, and rows
    computed."""

    whole: float
    callback: list[float]
    rows: int


#: What a run is called with: made anew for each.
Keywords = Callable[[Untrained, str], Mapping[str, Any]]


def no_callbacks(model: Untrained, form: str) -> Mapping[str, Any]:
    return {}


def cut(model: Untrained, form: str) -> Mapping[str, Any]:
    return bind(model.pipeline, CFGCutoff(RATIO))


def preview(model: Untrained, form: str) -> Mapping[str, Any]:
    return bind(model.pipeline, _preview(form))


def schedule(model: Untrained, form: str) -> Mapping[str, Any]:
    return bind(model.pipeline, GuidanceSchedule(linear(6.0, 4.0)))


def cut_and_preview(model: Untrained, form: str) -> Mapping[str, Any]:
    return bind(model.pipeline, CFGCutoff(RATIO), _preview(form))


def schedule_and_preview(model: Untrained, form: str) -> Mapping[str, Any]:
    return bind(model.pipeline, GuidanceSchedule(linear(6.0, 4.0)), _preview(form))


def function(model: Untrained, form: str) -> Mapping[str, Any]:
    return {"callback_on_step_end": Timed(nothing)}


def three(model: Untrained, form: str) -> Mapping[str, Any]:
    bound = dict(bind(model.pipeline, Nothing(), Nothing(), Nothing()))
    return {**bound, "callback_on_step_end": Timed(bound["callback_on_step_end"])}


def _preview(form: str) -> Preview:
    return Preview(lambda frame: None, factors=builtin_formats()[form])


#: What is timed; "off" is at guidance scale 1.0.
WAYS: Mapping[str, tuple[Keywords, float]] = {
    "uncut": (no_callbacks, GUIDANCE),
    "cut": (cut, GUIDANCE),
    "off": (no_callbacks, 1.0),
    "Preview": (preview, GUIDANCE),
    "GuidanceSchedule": (schedule, GUIDANCE),
}
#: What is timed inside of the callback only.
INSIDE: Mapping[str, Keywords] = {"a function": function, "three callbacks": three}
CHECKED: Mapping[str, Keywords] = {
    "no callbacks": no_callbacks,
    "CFGCutoff and Preview": cut_and_preview,
    "GuidanceSchedule and Preview": schedule_and_preview,
}


def timed(model: Untrained, form: str, way: Keywords, guidance: float, steps: int) -> Run:
    with model.rows() as rows:
        began = time.perf_counter()
        keywords = way(model, form)
        latents = model.to_numpy(model(steps, guidance, **keywords))
        whole = time.perf_counter() - began
    if not np.isfinite(latents).all():
        raise SystemExit("the random weights gave latents that are not finite: nothing is proven")
    callback = keywords.get("callback_on_step_end")
    return Run(whole, callback.seconds if isinstance(callback, Timed) else [], sum(rows))


def measure(case: str, model: Untrained, form: str, steps: int, repetitions: int) -> list[Figure]:
    """Measure the times of one model, next to each other."""
    runs = interleaved(
        {
            name: partial(timed, model, form, way, guidance, steps)
            for name, (way, guidance) in WAYS.items()
        },
        repetitions,
        case,
    )
    short = interleaved(
        {
            name: partial(timed, model, form, way, GUIDANCE, min(steps, FEW_STEPS))
            for name, way in INSIDE.items()
        },
        repetitions,
        f"{case}, callbacks",
    )

    def added(name: str, at_most: float | None = None) -> Figure:
        pairs = zip(runs[name], runs["uncut"], strict=True)
        shares = [100 * (run.whole / bare.whole - 1) for run, bare in pairs]
        return figure(case, f"{name}: added", "%", shares, at_most)

    def inside(name: str, at_most: float | None = None) -> Figure:
        found = [1e6 * float(np.median(run.callback)) for run in short[name]]
        return figure(case, f"{name}: on the loop's thread", "us", found, at_most)

    guided = guided_steps(steps) / steps
    batch = int(model.arguments["latents"].shape[0])
    return [
        figure(case, "rows", "ratio", [share_of_rows(runs, steps, batch)]),
        *compared(case, runs, "whole", "", guided, AT_MOST),
        added("Preview", PREVIEW_AT_MOST),
        added("GuidanceSchedule"),
        inside("a function"),
        inside("three callbacks", MACHINERY_AT_MOST_US),
        *(
            figure(case, f"a step, {name}", "ms", [1e3 * run.whole / steps for run in runs[key]])
            for key, name in (("uncut", "guided"), ("off", "at guidance 1.0"))
        ),
    ]


def stopped(model: Untrained, form: str, way: Keywords, steps: int) -> str:
    """Return what torch says to a run that must not wait for the device; empty if nothing.

    What a pipeline does before its loop may wait. An error inside of a preview is a warning.
    """

    def forbid(*_: Any) -> None:
        torch.cuda.set_sync_debug_mode("error")

    hook = model.denoiser.register_forward_pre_hook(forbid)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model(steps, GUIDANCE, **way(model, form))
        except RuntimeError as error:
            return str(error)
        finally:
            torch.cuda.set_sync_debug_mode("default")
            hook.remove()
    messages = [str(warning.message) for warning in caught if warning.category is RuntimeWarning]
    return "; ".join(messages)


def check_debug_mode(case: str, model: Untrained, form: str) -> tuple[list[Figure], list[str]]:
    """Tell whether runs wait for the device, and what torch says where they do."""
    figures, notes = [], []
    for name, way in CHECKED.items():
        stops = " ".join(stopped(model, form, way, FEW_STEPS).split())
        figures.append(figure(case, f"{name}: stopped", "count", [bool(stops)], 0))
        if stops:
            notes.append(f"{case}, {name}: with set_sync_debug_mode: {stops[:300]}")
    return figures, notes


def main(arguments: Sequence[str] | None = None) -> int:
    made = parser(__doc__, ["torch"], repetitions=3)
    made.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="default: cuda")
    made.add_argument(
        "--models", nargs="+", choices=MODELS, metavar="NAME", default=["SDXL", "FLUX"],
        help=f"of {', '.join(map(repr, MODELS))}; default: SDXL FLUX",
    )  # fmt: skip
    made.add_argument("--batches", type=int, nargs="+", default=[1, 4], help="default: 1 4")
    made.add_argument("--steps", type=int, default=20, help="of a run; default: 20")
    options = made.parse_args(arguments)
    if options.steps < 3:
        made.error("--steps must be at least 3, or there is nothing to cut")
    if min(options.batches) < 1:
        made.error("--batches must be at least 1 each")
    cuda = options.device == "cuda"
    if cuda and not torch.cuda.is_available():
        print(
            'no CUDA device: nothing was measured (--device cpu --models "SDXL, tiny" rehearses)',
            file=sys.stderr,
        )
        return 2
    fw = TorchOn(options.device, torch.bfloat16)
    figures: list[Figure] = []
    notes: list[str] = []
    for name in options.models:
        for batch in options.batches:
            model = MODELS[name].make(fw, batch)
            case = f"{name}, batch {batch}"
            form = MODELS[name].form
            figures += measure(case, model, form, options.steps, options.repetitions)
            if cuda:
                checked, stops = check_debug_mode(case, model, form)
                figures, notes = [*figures, *checked], [*notes, *stops]
            del model
            gc.collect()  # a pipeline refers to itself, and two of FLUX are too large
    hardware = {"device": options.device}
    if cuda:
        hardware = {"device": torch.cuda.get_device_name(), "cuda": str(torch.version.cuda)}
    settings = {"steps": options.steps, "rounds": options.repetitions}
    out = None if not cuda and options.out == RESULTS else options.out
    write(
        out, "guidance_cuda", TITLE, METHOD, "torch", settings, figures,
        hardware=hardware, notes=notes,
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
