"""Measure how long a step of the shapes checkpoint takes on each framework, on a CPU, for
information.

    python benchmarks/cross_framework.py --framework torch

Writes docs/benchmarks/cross_framework-<framework>.json. Takes a minute on two idle cores.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from _common import Figure, figure, interleaved, parser, write
from _frameworks import framework

SHAPES = Path(__file__).parents[1] / "examples" / "shapes"
sys.path.insert(0, str(SHAPES))

from generate import BEST_GUIDANCE, Latents, load_pipeline, random_requests  # noqa: E402

TITLE = "A step on each framework"
METHOD = """\
The shapes checkpoint (`examples/shapes`), float32, with guidance to the end and none of unicb's
callbacks, from the same noise. For information: each framework runs in an environment of its own,
at another time. torch has one thread here; processor time tells how many MindSpore keeps busy.

- **a step** is the median time between the ends of two steps, each of which waits for the latents.
- **a picture** is the whole call, with text encoder and autoencoder, by the number of pictures.
"""


class Run(NamedTuple):
    """A run holds the seconds of a call, and those of the median step: of time, and of processor
    time."""

    whole: float
    step: float
    processor: float


def timed(pipeline: Any, captions: Sequence[str], noise: Any, steps: int) -> Run:
    stamps: list[tuple[float, float]] = []

    def stamp(_: Any, __: int, ___: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        # MindSpore computes in the background, until somebody looks.
        np.asarray(tensors["latents"])
        stamps.append((time.perf_counter(), time.process_time()))
        return tensors

    began = time.perf_counter()
    pipeline(
        list(captions),
        latents=noise,
        guidance_scale=BEST_GUIDANCE,
        num_inference_steps=steps,
        output_type="np",
        callback_on_step_end=stamp,
        callback_on_step_end_tensor_inputs=["latents"],
    )
    whole = time.perf_counter() - began
    between = np.diff(np.array(stamps), axis=0)
    step, processor = np.median(between, axis=0)
    return Run(whole, float(step), float(processor))


def figures_of(case: str, runs: Sequence[Run], batch: int) -> list[Figure]:
    return [
        figure(case, "a step", "ms", [1e3 * run.step for run in runs]),
        figure(case, "a step (processor time)", "ms", [1e3 * run.processor for run in runs]),
        figure(case, "a picture", "ms", [1e3 * run.whole / batch for run in runs]),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    made = parser(__doc__, repetitions=10)
    made.add_argument("--steps", type=int, default=25, help="of a run; default: 25")
    made.add_argument("--batches", type=int, nargs="+", default=[1, 4], help="default: 1 4")
    options = made.parse_args(arguments)
    if options.steps < 3:
        made.error("--steps must be at least 3: what is measured is the time between steps' ends")
    if min(options.batches) < 1:
        made.error("--batches must be at least 1 each")
    fw = framework(options.framework)
    pipeline = load_pipeline(options.framework, SHAPES / "checkpoint")

    def contestant(batch: int) -> partial[Run]:
        noise: Latents
        scenes, noise = random_requests(batch, seed=0)
        captions = [scene.caption for scene in scenes]
        return partial(timed, pipeline, captions, fw.tensor(noise), options.steps)

    runs = interleaved(
        {f"batch {batch}": contestant(batch) for batch in options.batches},
        options.repetitions,
        fw.name,
    )
    figures: list[Figure] = []
    for (case, found), batch in zip(runs.items(), options.batches, strict=True):
        figures += figures_of(case, found, batch)
    settings = {
        "DDIM steps": options.steps,
        "guidance scale": BEST_GUIDANCE,
        "rounds": options.repetitions,
    }
    write(options.out, "cross_framework", TITLE, METHOD, fw.name, settings, figures)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
