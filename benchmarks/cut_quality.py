"""Measure what cutting guidance short costs: how many pictures show what they should, over the work
done.

    python benchmarks/cut_quality.py
    python benchmarks/cut_quality.py --draw        the plot anew, from the JSON

500 prompts of the shapes checkpoint for each cut, from the same noise, judged by its judge; writes
docs/benchmarks/cut_quality-torch.json and docs/images/cut_quality.png. The plot needs
matplotlib. Takes about ten minutes on two idle cores.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from _accuracy_plot import draw
from _common import RESULTS, Figure, parser, progress, write
from _intervals import Estimate, mean, paired_difference, share
from _pipelines import computed_rows

from unicb import Callback, CFGCutoff, GuidanceInterval, bind

SHAPES = Path(__file__).parents[1] / "examples" / "shapes"
sys.path.insert(0, str(SHAPES))

from drawings import Scene  # noqa: E402
from generate import BEST_GUIDANCE, load_pipeline, random_requests  # noqa: E402
from judge import Verdict, judge  # noqa: E402

TITLE = "What the cut costs"
METHOD = """\
Pictures of the shapes checkpoint (`examples/shapes`), of prompts drawn at random, at the guidance
scale that its examples use. Every way of guiding gets the same prompts and the same noise. The
judge, which knows nothing of the model, says which shape, colour and background a picture shows; it
is right on all of 2000 drawings. Brackets are intervals of 95 % here. The windows of 0.4 have as
many guided steps as `CFGCutoff(0.4)`, that to the end one less. All this is what one small model
shows, trained so that much hangs on its guidance; others may bear a cut better or worse.

- **rows** are those that the denoiser computed, as a share of the uncut run's: counted at its first
  layer.
- **right** is the share of pictures that show what the prompt asks for, in all three respects;
  Wilson's interval.
- **more than uncut** is the difference of that share to the uncut pictures', in points of 100; the
  interval is of pairs (Bonett and Price, 2012).
- **another verdict** is the share of prompts for which the judge sees something else than in the
  uncut picture, rightly or wrongly.
- **difference to the uncut picture** is the mean of the absolute differences over all pixels and
  colours, in levels of 255; bootstrap over the prompts.
"""
UNCUT, NONE = "uncut", "guidance scale 1.0"
#: Of the prompts and the noise. No training run and no table of the checkpoint used it.
SEED = 20261121
#: Prompts that one process draws at once.
CHUNK = 50

CUTS = tuple(n / 10 for n in range(11))
WINDOWS = (
    *((n / 10, (n + 4) / 10) for n in range(1, 7)),  # as many steps as CFGCutoff(0.4)
    (0.1, 1.0),
    (0.2, 1.0),
)


@dataclass(frozen=True)
class Way:
    """A way of guiding.

    Attributes:
        callback: makes the callback that guides; None: plain guidance.
        guided: whether the pipeline is called with guidance.
    """

    callback: Callable[[], Callback] | None = None
    guided: bool = True

    def draw(self, studio: Studio, chosen: Sequence[int]) -> tuple[list[Any], int]:
        """Draw the pictures of these of the prompts; return them, and the rows that the denoiser
        computed."""
        return studio.draw(self, chosen)


WAYS: Mapping[str, Way] = {
    UNCUT: Way(),
    **{f"CFGCutoff({cut})": Way(partial(CFGCutoff, cut)) for cut in CUTS},
    **{
        f"GuidanceInterval({start}, {stop})": Way(partial(GuidanceInterval, start, stop))
        for start, stop in WINDOWS
    },
    NONE: Way(guided=False),
}


@dataclass
class Outcome:
    """An outcome holds what came of the prompts in one way.

    Attributes:
        rows: that the denoiser computed.
        verdicts: what the judge saw, for each prompt.
        differences: to the uncut picture, in levels, for each prompt.
    """

    rows: int = 0
    verdicts: list[Verdict] = field(default_factory=list)
    differences: list[float] = field(default_factory=list)

    def add(self, other: Outcome) -> None:
        self.rows += other.rows
        self.verdicts += other.verdicts
        self.differences += other.differences


@dataclass(frozen=True)
class Settings:
    """``Settings`` say which pictures are made, and how."""

    prompts: int
    steps: int
    guidance: float
    ways: Mapping[str, Way]


class Studio:
    """Draw prompts in every way; one in each process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        torch.set_num_threads(1)
        self._pipeline = load_pipeline("torch", SHAPES / "checkpoint")
        self._pipeline.unet.to(memory_format=torch.channels_last)  # a quarter faster
        self._scenes, self._noise = random_requests(settings.prompts, SEED)

    def outcomes(self, chunk: slice) -> dict[str, Outcome]:
        """Draw the prompts of a chunk in every way, the uncut first."""
        made: dict[str, Outcome] = {}
        uncut: npt.NDArray[np.float64] | None = None
        for name, way in self._settings.ways.items():
            pictures, rows = way.draw(self, range(chunk.start, chunk.stop))
            pixels = np.stack([np.asarray(picture, np.float64) for picture in pictures])
            uncut = pixels if uncut is None else uncut
            differences = np.abs(pixels - uncut).mean(axis=(1, 2, 3))
            made[name] = Outcome(rows, [judge(one) for one in pictures], differences.tolist())
        return made

    def draw(self, way: Way, chosen: Sequence[int]) -> tuple[list[Any], int]:
        """Draw the pictures of these of the prompts; return them, and the rows that the denoiser
        computed."""
        pipe, chosen = self._pipeline, [*chosen]
        callbacks = bind(pipe, way.callback()) if way.callback is not None else {}
        with computed_rows(pipe.unet.conv_in) as rows:
            pictures = pipe(
                [self._scenes[index].caption for index in chosen],
                latents=torch.from_numpy(self._noise[chosen]),
                guidance_scale=self._settings.guidance if way.guided else 1.0,
                num_inference_steps=self._settings.steps,
                return_dict=False,
                **callbacks,
            )[0]
        return pictures, sum(rows)


_studio: Studio | None = None


def _open(settings: Settings) -> None:
    global _studio
    _studio = Studio(settings)


def _outcomes(chunk: slice) -> dict[str, Outcome]:
    assert _studio is not None
    return _studio.outcomes(chunk)


def _pool(processes: int, settings: Settings) -> Executor:
    """Start other processes; this one, where one is enough: it has the framework already."""
    if processes == 1:
        return ThreadPoolExecutor(1, initializer=_open, initargs=(settings,))
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(processes, context, _open, (settings,))


def generate(settings: Settings, processes: int) -> dict[str, Outcome]:
    """Draw all prompts in every way, in the order of the prompts."""
    chunks = [
        slice(start, min(start + CHUNK, settings.prompts))
        for start in range(0, settings.prompts, CHUNK)
    ]
    done = 0
    progress("prompts", done, settings.prompts)
    with _pool(processes, settings) as pool:
        futures = {pool.submit(_outcomes, chunk): chunk for chunk in chunks}
        for future in as_completed(futures):
            future.result()
            chunk = futures[future]
            done += chunk.stop - chunk.start
            progress("prompts", done, settings.prompts)
    whole = {name: Outcome() for name in settings.ways}
    for future in futures:
        for name, outcome in future.result().items():
            whole[name].add(outcome)
    return whole


def is_right(verdict: Verdict, scene: Scene) -> bool:
    return (verdict.shape, verdict.colour, verdict.background) == (
        scene.shape,
        scene.colour,
        scene.background,
    )


def figures_of(outcomes: Mapping[str, Outcome], scenes: Sequence[Scene]) -> Iterator[Figure]:
    """Yield all figures of all ways."""
    count, uncut = len(scenes), outcomes[UNCUT]
    right_uncut = [is_right(*pair) for pair in zip(uncut.verdicts, scenes, strict=True)]
    for name, outcome in outcomes.items():

        def figure_of(what: str, unit: str, found: Estimate, name: str = name) -> Figure:
            return Figure(what, name, unit, *found, rounds=count)

        right = [is_right(*pair) for pair in zip(outcome.verdicts, scenes, strict=True)]
        rows = 100 * outcome.rows / uncut.rows
        yield figure_of("rows", "%", Estimate(rows, rows, rows))
        yield figure_of("right", "%", share(sum(right), count).times(100))
        if name == UNCUT:
            continue
        pairs = list(zip(right, right_uncut, strict=True))
        difference = paired_difference(
            sum(now and not before for now, before in pairs),
            sum(before and not now for now, before in pairs),
            count,
        )
        yield figure_of("more than uncut", "%", difference.times(100))
        changed = sum(a != b for a, b in zip(outcome.verdicts, uncut.verdicts, strict=True))
        yield figure_of("another verdict", "%", share(changed, count).times(100))
        yield figure_of("difference to the uncut picture", "levels", mean(outcome.differences))


def findings(figures: Sequence[Figure]) -> list[str]:
    """Say what the figures show, in sentences; only what they do show."""
    by = {(item.name, item.case): item for item in figures}
    ways = list(dict.fromkeys(item.name for item in figures))

    def right(name: str) -> str:
        return f"{by[name, 'right'].median:.1f} %"

    def lost(name: str) -> str:
        item = by[name, "more than uncut"]
        return f"{item.median:+.1f} points ({item.lower:+.1f} to {item.upper:+.1f})"

    def costs(name: str) -> bool:
        return by[name, "more than uncut"].upper < 0

    sentences = []
    if NONE in ways:
        sentences.append(
            f"With guidance to the end {right(UNCUT)} are right, and {right(NONE)} at scale 1.0."
        )
    cuts = [name for name in ways if name.startswith("CFGCutoff")]
    if (usual := "CFGCutoff(0.4)") in cuts:
        sentences.append(
            f"{usual} leaves out {100 - by[usual, 'rows'].median:.0f} % of the rows and has "
            f"{right(usual)} right, {lost(usual)}; the judge sees something else in "
            f"{by[usual, 'another verdict'].median:.1f} % of the pictures, which differ by "
            f"{by[usual, 'difference to the uncut picture'].median:.1f} levels in the mean."
        )
    free = [name for name in cuts if not any(map(costs, cuts[cuts.index(name) :]))]
    if free:
        sentences.append(
            f"From {free[0]} on, no cut has a loss that {by[UNCUT, 'right'].rounds} prompts can "
            f"tell from none; {free[0]} leaves out {100 - by[free[0], 'rows'].median:.0f} % of the "
            "rows."
        )
    windows = [name for name in ways if name.startswith("GuidanceInterval") and "1.0" not in name]
    if windows and usual in cuts:
        shares = [by[name, "right"].median for name in (usual, *windows)]
        if shares == sorted(shares, reverse=True):
            sentences.append(
                f"Of as many guided steps, {usual} has the first, and does best; the later a "
                "window begins, the fewer are right."
            )
        best = max(windows, key=lambda name: by[name, "right"].median)
        worst = min(windows, key=lambda name: by[name, "right"].median)
        sentences.append(
            f"Of the windows of as many steps as {usual}, {best} does best with "
            f"{right(best)} ({lost(best)}) and {worst} worst with {right(worst)} ({lost(worst)})."
        )
    return sentences


def _check(options: Any, error: Callable[[str], None]) -> None:
    if options.prompts < 2 or options.steps < 2 or options.processes < 1:
        error("--prompts and --steps must be at least 2, --processes at least 1")
    if options.guidance <= 1:
        error("--guidance must be above 1: there is nothing to cut otherwise")
    if options.picture is not None and find_spec("matplotlib") is None:
        error("the plot needs matplotlib: install it, or pass --no-picture")


def main(arguments: Sequence[str] | None = None) -> int:
    made = parser(__doc__, ["torch"], repetitions=None)
    add = made.add_argument
    add("--prompts", type=int, default=500, help="default: 500")
    add("--steps", type=int, default=20, help="of a run; default: 20")
    add("--guidance", type=float, default=BEST_GUIDANCE, help=f"default: {BEST_GUIDANCE}")
    add("--processes", type=int, default=os.cpu_count() or 1, help="default: one for each core")
    add(
        "--ways", nargs="+", choices=list(WAYS)[1:], metavar="WAY", default=list(WAYS)[1:],
        help=f"beside the uncut run, of {', '.join(map(repr, list(WAYS)[1:]))}; default: all",
    )  # fmt: skip
    picture = RESULTS.parent / "images" / "cut_quality.png"
    add("--picture", type=Path, default=picture, help="default: docs/images/cut_quality.png")
    add("--no-picture", dest="picture", action="store_const", const=None)
    add("--draw", action="store_true", help="draw the plot from the JSON, and measure nothing")
    options = made.parse_args(arguments)
    _check(options, made.error)
    found = options.out / "cut_quality-torch.json"
    if not options.draw:
        measure(options)
    if options.picture is not None:
        draw(json.loads(found.read_text(encoding="utf-8"))["figures"], UNCUT, options.picture)
        print(f"written: {options.picture}")
    return 0


def measure(options: Any) -> None:
    """Generate, judge, and write the JSON."""
    ways = {name: WAYS[name] for name in (UNCUT, *options.ways)}
    settings = Settings(options.prompts, options.steps, options.guidance, ways)
    outcomes = generate(settings, options.processes)
    scenes, _ = random_requests(settings.prompts, SEED)
    figures = list(figures_of(outcomes, scenes))
    picture = None
    if options.picture is not None:
        # From the page, which is beside the folder of the results.
        path = os.path.relpath(options.picture, options.out.parent)
        picture = ("right pictures, and differences, over the rows computed", path)
    settings = {
        "prompts": settings.prompts,
        "DDIM steps": settings.steps,
        "guidance scale": settings.guidance,
        "seed": SEED,
    }
    write(
        options.out, "cut_quality", TITLE, METHOD, "torch", settings, figures,
        notes=findings(figures),
        picture=picture,
    )  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
