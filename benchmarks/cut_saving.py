"""Measure how much of the time CFGCutoff saves, next to what so many rows take without it.

    python benchmarks/cut_saving.py --framework torch

Stable Diffusion's and SDXL's shapes with random weights, of 40 and 100 million parameters; writes
docs/benchmarks/cut_saving-<framework>.json. Takes less than ten minutes on two idle cores.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from _common import Figure, figure, interleaved, parser, positive, write
from _frameworks import Framework, framework
from _pipelines import Untrained, sd_unet, sdxl_unet, stable_diffusion, stable_diffusion_xl

from unicb import CFGCutoff, bind

TITLE = "What the cut saves"
METHOD = """\
`StableDiffusionPipeline` (DDIM) and `StableDiffusionXLPipeline` (Euler) with random weights, the
widths of their UNets scaled down and the depths as they are, float32, one prompt. Three runs in
every round: with guidance to the end, with `CFGCutoff(0.4)`, and at guidance scale 1.0, where the
pipeline itself computes one row a step instead of two. A run is timed whole, from `bind` until its
latents are on the host.

- **rows** are those that the UNet's first layer really got, as a share of the uncut run's.
- **cut** is the time of the run that is cut, as a share of the uncut run's.
- **needed** is what the framework itself takes for that many rows, as a share too: the guided steps
  at what a step takes in the uncut run, the others at what one takes at guidance scale 1.0. Two
  rows do not take twice as long as one.
- **cut, to what is needed** is the quotient of the two, with its target.
"""
RATIO = 0.4
GUIDANCE = 5.0
AT_MOST = 1.03

#: Makers of pipelines for latents of a given size.
MODELS: Mapping[str, Callable[[Framework, int], Untrained]] = {
    "SD, 40 M": lambda fw, size: stable_diffusion(fw, sd_unet(64), size),
    "SD, 100 M": lambda fw, size: stable_diffusion(fw, sd_unet(104), size),
    "SDXL, 40 M": lambda fw, size: stable_diffusion_xl(fw, sdxl_unet(40), size),
    "SDXL, 100 M": lambda fw, size: stable_diffusion_xl(fw, sdxl_unet(64), size),
    # To try the script.
    "SD, tiny": lambda fw, size: stable_diffusion(fw, sd_unet(8, cross_attention_dim=8), size),
    "SDXL, tiny": lambda fw, size: stable_diffusion_xl(
        fw, sdxl_unet(8, transformer_layers_per_block=1), size
    ),
}
#: Models, rounds, and a size, that take less than ten minutes. MindSpore takes ten times as long on
#: a CPU.
DEFAULTS: Mapping[str, tuple[Sequence[str], int, int]] = {
    "torch": (("SD, 40 M", "SD, 100 M", "SDXL, 40 M", "SDXL, 100 M"), 6, 24),
    "mindspore": (("SD, 40 M", "SDXL, 100 M"), 5, 16),
}


class Run(NamedTuple):
    """A run holds its seconds, those of processor time in it, and how many rows its denoiser
    computed."""

    whole: float
    processor: float
    rows: int


def timed(model: Untrained, steps: int, guidance: float, *, cut: bool = False) -> Run:
    with model.rows() as rows:
        began, processor = time.perf_counter(), time.process_time()
        callbacks = bind(model.pipeline, CFGCutoff(RATIO)) if cut else {}
        latents = model.to_numpy(model(steps, guidance, **callbacks))
        whole, processor = time.perf_counter() - began, time.process_time() - processor
    if not np.isfinite(latents).all():
        raise SystemExit("the random weights gave latents that are not finite: nothing is proven")
    return Run(whole, processor, sum(rows))


def share_of_rows(runs: Mapping[str, Sequence[Any]], steps: int, batch: int) -> float:
    """Return the rows of the runs that are cut, as a share of the uncut ones'.

    Args:
        runs: "uncut", "cut" and "off" (at guidance scale 1.0), by round, with their rows.
        steps: of a run.
        batch: of how many pictures.

    Raises:
        SystemExit: a run did not compute as many rows as it should.
    """
    parts = {"uncut": 2 * steps, "cut": guided_steps(steps) + steps, "off": steps}
    for name, part in parts.items():
        for run in runs[name]:
            if run.rows != part * batch:
                raise SystemExit(
                    f"a run ({name}) computed {run.rows} rows, not {part * batch}: nothing is "
                    "proven"
                )
    return parts["cut"] / parts["uncut"]


def guided_steps(steps: int) -> int:
    """Count the steps that have guidance: those up to index ``int(steps * RATIO)``."""
    return min(int(steps * RATIO) + 1, steps)


def measure(case: str, model: Untrained, steps: int, repetitions: int) -> list[Figure]:
    """Measure all figures of one model."""
    contestants = {
        "uncut": partial(timed, model, guidance=GUIDANCE),
        "cut": partial(timed, model, guidance=GUIDANCE, cut=True),
        "off": partial(timed, model, guidance=1.0),
    }

    def warm_up() -> None:
        for run in contestants.values():
            run(min(steps, 3))

    runs = interleaved(
        {name: partial(run, steps) for name, run in contestants.items()},
        repetitions,
        case,
        warm_up,
    )
    batch = int(model.arguments["latents"].shape[0])
    return [
        figure(case, "rows", "ratio", [share_of_rows(runs, steps, batch)]),
        *compared(case, runs, "whole", "", guided_steps(steps) / steps, AT_MOST),
        *compared(case, runs, "processor", " (processor time)", guided_steps(steps) / steps),
        *(
            figure(case, f"a step, {name}", "ms", [1e3 * run.whole / steps for run in runs[key]])
            for key, name in (("uncut", "guided"), ("off", "at guidance 1.0"))
        ),
    ]


def compared(
    case: str,
    runs: Mapping[str, Sequence[Any]],
    of: str,
    remark: str,
    guided: float,
    at_most: float | None = None,
) -> list[Figure]:
    """Compare the runs' times, or processor times, next to each other.

    Args:
        case: for the figures.
        runs: "uncut", "cut" and "off" (at guidance scale 1.0), by round.
        of: the attribute of a run to compare.
        remark: on the figures' names.
        guided: the share of the steps that have guidance in the run that is cut.
        at_most: the target of what the cut run takes, to what is needed.
    """
    uncut, cut, off = (
        np.array([getattr(run, of) for run in runs[key]]) for key in ("uncut", "cut", "off")
    )
    needed = guided * uncut + (1 - guided) * off
    return [
        figure(case, f"cut{remark}", "ratio", cut / uncut),
        figure(case, f"needed{remark}", "ratio", needed / uncut),
        figure(case, f"cut, to what is needed{remark}", "ratio", cut / needed, at_most),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    made = parser(__doc__, repetitions=None)
    made.add_argument("--repetitions", type=positive, help="default: 6, with MindSpore 5")
    made.add_argument("--size", type=int, help="of the latents; default: 24, with MindSpore 16")
    made.add_argument("--steps", type=int, default=20, help="of a run; default: 20")
    made.add_argument(
        "--models", nargs="+", choices=MODELS, metavar="NAME",
        help=f"of {', '.join(map(repr, MODELS))}; default: all but the tiny ones, with MindSpore "
        "the smallest and the largest of these",
    )  # fmt: skip
    options = made.parse_args(arguments)
    if options.steps < 3:
        made.error("--steps must be at least 3, or there is nothing to cut")
    models, repetitions, size = DEFAULTS[options.framework]
    models, repetitions = options.models or models, options.repetitions or repetitions
    size = size if options.size is None else options.size
    if size < 8 or size % 8:
        made.error("--size must be a multiple of 8, which the UNets halve three times")
    fw = framework(options.framework)
    figures: list[Figure] = []
    parameters = []
    for case in models:
        model = MODELS[case](fw, size)
        parameters.append(f"{case}: {model.parameters() / 1e6:.1f} M")
        figures += measure(case, model, options.steps, repetitions)
    settings = {
        "height and width of the latents": size,
        "steps": options.steps,
        "rounds": repetitions,
        "parameters": parameters,
    }
    write(options.out, "cut_saving", TITLE, METHOD, fw.name, settings, figures)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
