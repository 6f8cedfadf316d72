"""Measure what a step of a trained model takes on a runtime, next to torch, with guidance and
without.

    nox -s "bench(onnx)" "bench(openvino)"

Runs the checkpoint of examples/shapes, exported for the runtime into the folder that UNICB_EXPORTED
names, and on torch in the same process; writes docs/benchmarks/runtime_cost-<runtime>.json. Takes
two minutes on two idle cores.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from _common import LOAD, Figure, figure, interleaved, machine, parser, write
from cut_saving import RATIO, guided_steps

from unicb import CFGCutoff, bind
from unicb.backend import backend_for

sys.path.append(str(Path(__file__).parents[1] / "instruments"))

from exported_shapes import CHECKPOINT, load

TITLE = "What a step takes on other runtimes"
METHOD = """\
The trained checkpoint of `examples/shapes` (1.7 million parameters in the UNet, latents of 16 by
16 cells), one prompt, DDIM, one thread: on ONNX Runtime by optimum-onnx and on OpenVINO by
optimum-intel, each in an environment of its own, next to torch in the same process. Two runs of
each in every round: with guidance to the end, and with `CFGCutoff(0.4)`. A step is timed from the
end of the one before it; a round's figure is the median over its steps.

- **a guided step** computes two rows, in the run that is not cut.
- **a step after the cut** computes one; the first of them is not counted.
- **to torch's** compares with torch's in the same round: times of the two environments are of
  different minutes, and these ratios are what to compare them by.
- **a cut run** is the time of the steps of a run that is cut, as a share of those of the uncut run.
"""
PROMPT = "a red star on a blue background"
GUIDANCE = 5.0
NAMES = {"onnx": "ONNX Runtime", "openvino": "OpenVINO"}
#: How far apart two runtimes may be in float32, in standard deviations of the latents.
NEAR = 1e-2


class Run(NamedTuple):
    """Seconds from step to step, of the clock and of the processor; the rows that were computed;
    and the latents."""

    clock: Any
    processor: Any
    rows: list[int]
    latents: Any


def timed(pipeline: Any, steps: int, *, cut: bool, counted: bool = False) -> Run:
    """Make a run of the pipeline, timed.

    Args:
        cut: whether with a cutoff.
        counted: whether to count the rows, which takes time.
    """
    import torch

    clock: list[float] = []
    processor: list[float] = []
    rows: list[int] = []

    def note(pipe: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        clock.append(time.perf_counter())
        processor.append(time.process_time())
        return tensors

    def count(call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        rows.append(len(args[0] if args else kwargs["sample"]))
        return call(*args, **kwargs)

    # Below unicb's own hook, as it is put there first.
    undo = backend_for(pipeline).hook(pipeline.unet, count) if counted else None
    try:
        latents = pipeline(
            PROMPT,
            num_inference_steps=steps,
            guidance_scale=GUIDANCE,
            generator=torch.Generator().manual_seed(0),
            output_type="latent",
            **(bind(pipeline, CFGCutoff(RATIO), note) if cut else {"callback_on_step_end": note}),
        )[0]
    finally:
        if undo is not None:
            undo()
    return Run(np.diff(clock), np.diff(processor), rows, latents.numpy())


def prove(name: str, pipeline: Any, reference: Any, steps: int) -> None:
    """Check that the pipeline draws what the reference draws, and computes what a cut leaves.

    Raises:
        SystemExit: it does not, and a comparison of times would mean nothing.
    """
    for cut in (False, True):
        found, expected = (timed(p, steps, cut=cut, counted=True) for p in (pipeline, reference))
        guided = guided_steps(steps) if cut else steps
        if found.rows != [2] * guided + [1] * (steps - guided):
            raise SystemExit(f"{name} computed the rows {found.rows}: nothing is proven")
        apart = np.abs(found.latents - expected.latents).max() / expected.latents.std()
        if not apart < NEAR:
            raise SystemExit(f"{name} draws something else than torch, {apart:.2g} off")


def measure(
    pipelines: Mapping[str, Any], steps: int, repetitions: int
) -> dict[str, dict[str, list[Run]]]:
    """Measure the runs by pipeline, uncut and cut, by round."""
    contestants = {
        f"{name}, {way}": partial(timed, pipeline, steps, cut=way == "cut")
        for name, pipeline in pipelines.items()
        for way in ("uncut", "cut")
    }
    runs = interleaved(contestants, repetitions, "runs")
    return {name: {way: runs[f"{name}, {way}"] for way in ("uncut", "cut")} for name in pipelines}


def compared(
    name: str, runs: Mapping[str, Mapping[str, Sequence[Run]]], steps: int
) -> list[Figure]:
    """Return all figures of one pipeline."""
    found: list[Figure] = []
    for of, remark in (("clock", ""), ("processor", " (processor time)")):
        guided, after = _steps(runs[name], of, steps)
        torch_guided, torch_after = _steps(runs["torch"], of, steps)
        whole = [
            getattr(cut, of).sum() / getattr(uncut, of).sum()
            for cut, uncut in zip(runs[name]["cut"], runs[name]["uncut"], strict=True)
        ]
        if name != "torch":
            to_torch = f"to torch's{remark}"
            found += [
                figure(name, f"a guided step, {to_torch}", "ratio", guided / torch_guided),
                figure(name, f"a step after the cut, {to_torch}", "ratio", after / torch_after),
            ]
        found += [
            figure(name, f"a step after the cut, to a guided one{remark}", "ratio", after / guided),
            figure(name, f"a cut run, to the uncut{remark}", "ratio", whole),
            figure(name, f"a guided step{remark}", "ms", 1e3 * guided),
            figure(name, f"a step after the cut{remark}", "ms", 1e3 * after),
        ]
    return found


def _steps(runs: Mapping[str, Sequence[Run]], of: str, steps: int) -> tuple[Any, Any]:
    """Return the seconds of a guided step and of one after the cut, by round."""
    # Those between two step ends: the first step has none before it.
    first = guided_steps(steps)
    guided = [np.median(getattr(run, of)) for run in runs["uncut"]]
    after = [np.median(getattr(run, of)[first:]) for run in runs["cut"]]
    return np.array(guided), np.array(after)


def pipelines_of(runtime: str, folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Return the pipelines by name, torch's first; and what is to be said of them."""
    import torch
    from diffusers import StableDiffusionPipeline

    torch.set_num_threads(1)
    on_torch = StableDiffusionPipeline.from_pretrained(str(CHECKPOINT))
    on_torch.set_progress_bar_config(disable=True)
    name = NAMES[runtime]
    found = {"torch": on_torch, name: load(runtime, folder)}
    if runtime == "onnx":
        return found, []
    import openvino

    preferred = openvino.Core().get_property("CPU", "INFERENCE_PRECISION_HINT").get_type_name()
    if preferred == "f32":
        return found, []
    usual = f"{name}, {preferred}"
    found[usual] = load(runtime, folder, ov_config={"INFERENCE_NUM_THREADS": "1"})
    return found, [f"{usual}: the precision that it takes by itself on this processor"]


def main(arguments: Sequence[str] | None = None) -> int:
    made = parser(__doc__, frameworks=tuple(NAMES), repetitions=20)
    made.set_defaults(framework=None)
    made.add_argument("--steps", type=int, default=20, help="of a run; default: 20")
    made.add_argument("--folder", type=Path, help="of the export; default: UNICB_EXPORTED")
    options = made.parse_args(arguments)
    folder = options.folder or Path(os.environ.get("UNICB_EXPORTED", "not exported"))
    if options.framework is None or not folder.is_dir():
        made.error("name the runtime, and where the checkpoint was exported to")
    if options.steps < 6:
        made.error("--steps must be at least 6, or too few come after the cut")
    pipelines, notes = pipelines_of(options.framework, folder)
    prove(NAMES[options.framework], pipelines[NAMES[options.framework]], pipelines["torch"], 6)
    runs = measure(pipelines, options.steps, options.repetitions)
    figures = [item for name in pipelines for item in compared(name, runs, options.steps)]
    if LOAD is not None and float(LOAD) > float(machine()["cores"]):
        notes.append(
            "other programs were at work on this machine: times by the clock have their share in "
            "them, processor time has not"
        )
    settings = {"steps": options.steps, "rounds": options.repetitions, "threads": 1}
    about = (options.out, "runtime_cost", TITLE, METHOD, options.framework)
    write(*about, settings, figures, notes=notes)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
