"""Measure what guidance rules do to pictures: how many show what they should, over the work done.

    python benchmarks/rule_quality.py
    python benchmarks/rule_quality.py --draw       the sheet of pictures alone

500 prompts of the shapes checkpoint for each rule, from the same noise, judged by its judge, as
cut_quality.py does it; writes docs/benchmarks/rule_quality-torch.json and
docs/images/rule_quality.png. Takes about fifteen minutes on two idle cores.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from _common import RESULTS, Figure, parser, write
from cut_quality import SEED, SHAPES, UNCUT, Settings, Studio, Way, figures_of, generate
from PIL import Image, ImageDraw, ImageFont

from unicb import (
    AdaptiveProjectedGuidance,
    CFGCutoff,
    ClassifierFreeZeroStarGuidance,
    GuidanceRescale,
    GuidanceRule,
    Step,
    TangentialClassifierFreeGuidance,
)

sys.path.insert(0, str(SHAPES.parent))

from generate import BEST_GUIDANCE, random_requests
from own_guidance import AdaptiveGuidance, Seen

TITLE = "What guidance rules do"
METHOD = """\
Pictures of the shapes checkpoint, made, judged and told as in "What the cut costs", of the same
prompts and noise, at the same guidance scale, each with one of the rules of
[guidance_rules.md](guidance_rules.md). `AdaptiveGuidance` is that of `examples/own_guidance.py`,
which decides for each picture by itself when guidance ends; it is compared with the cuts of "What
the cut costs". Steps of zeros are for models that predict a velocity, and `bind` refuses them on
this one, which predicts noise: here they are drawn all the same, to show why. One small model,
trained on drawings without light or texture, shows little of what these methods are for: less
saturation and fewer artefacts.
"""
#: Pictures of these of the prompts are on the sheet.
SHOWN = range(8)


class Plain(GuidanceRule):
    """Combine as the loop does by itself."""

    def combine(self, unconditional: Any, conditional: Any, scale: Any, step: Any) -> Any:
        return unconditional + (conditional - unconditional) * scale


class Zeros(ClassifierFreeZeroStarGuidance):
    """Begin with steps of zeros on any model."""

    def on_bind(self, target: Any) -> None:
        GuidanceRule.on_bind(self, target)


class Cosines(AdaptiveGuidance):
    """Note when guidance would end for each prompt, and let it go on.

    Until guidance ends for a prompt, its steps are those of guidance that goes on.
    """

    def __init__(self, threshold: float) -> None:
        super().__init__(threshold)
        #: Of each prompt, the step after which guidance ends.
        self.ends: list[int] = []

    def on_step_end(self, step: Step) -> None:
        """Read, at the end of a step, what the step before showed."""
        seen = step.run.state(self, Seen)
        before, seen.reading = seen.reading, partial(step.ops.to_numpy, seen.cosine)
        last = step.num_timesteps - 1
        cosines = np.full(len(seen.cosine), -1.0) if before is None else before().ravel()
        self.ends = self.ends or [last] * len(cosines)
        for index, cosine in enumerate(cosines):
            if cosine > self.threshold:
                self.ends[index] = min(self.ends[index], step.index)


@dataclass(frozen=True)
class Adaptive(Way):
    """``AdaptiveGuidance`` for each prompt by itself: prompts whose guidance ends after the same
    step are drawn together, with a cut after it, which gives the same pictures."""

    threshold: float = 0.0

    def draw(self, studio: Studio, chosen: Sequence[int]) -> tuple[list[Any], int]:
        noted = Cosines(self.threshold)
        studio.draw(Way(lambda: noted), chosen)
        pictures, rows = dict[int, Any](), 0
        for end in sorted(set(noted.ends)):
            group = [index for index, at in zip(chosen, noted.ends, strict=True) if at == end]
            cut = partial(CFGCutoff, cutoff_step_index=end)
            made, computed = studio.draw(Way(cut), group)
            pictures |= zip(group, made, strict=True)
            rows += computed
        return [pictures[index] for index in chosen], rows


_ADAPTIVE = partial(AdaptiveProjectedGuidance, None)
WAYS: Mapping[str, Way] = MappingProxyType(
    {
        UNCUT: Way(),
        "adaptive projected, eta=0, norm=None": Way(partial(_ADAPTIVE, eta=0.0, norm=None)),
        "adaptive projected, eta=0, norm=2.5, momentum=-0.5": Way(
            partial(_ADAPTIVE, eta=0.0, norm=2.5, momentum=-0.5)
        ),
        "zero star, no steps of zeros": Way(
            partial(ClassifierFreeZeroStarGuidance, zero_init_steps=0)
        ),
        "zero star, one step of zeros": Way(Zeros),
        "tangential": Way(TangentialClassifierFreeGuidance),
        "rescaled, 0.7": Way(partial(GuidanceRescale, Plain(), 0.7)),
        **{
            f"AdaptiveGuidance({threshold})": Adaptive(threshold=threshold)
            for threshold in (0.9995, 0.9998)
        },
    }
)


class Cuts(NamedTuple):
    """``Cuts`` holds what fixed cuts gave.

    Attributes:
        prompts: how many prompts they were measured on.
        measured: of each, the rows and how many pictures are right, in per cent.
    """

    prompts: int
    measured: Sequence[tuple[float, float]]


def findings(figures: Sequence[Figure], cuts: Cuts) -> Iterator[str]:
    """Say what the figures show, in sentences; only what they do show."""
    by = {(item.name, item.case): item for item in figures}
    names = [name for name in dict.fromkeys(item.name for item in figures) if name != UNCUT]
    adaptive = [name for name in names if name.startswith("AdaptiveGuidance")]

    def more(name: str) -> str:
        item = by[name, "more than uncut"]
        return f"{item.median:+.1f} points ({item.lower:+.1f} to {item.upper:+.1f})"

    whole = [name for name in names if name not in adaptive]
    better = [name for name in whole if by[name, "more than uncut"].lower > 0]
    worse = [name for name in whole if by[name, "more than uncut"].upper < 0]
    for names_of, what in ((better, "More"), (worse, "Fewer")):
        if names_of:
            listed = "; ".join(f"{name}: {more(name)}" for name in names_of)
            yield f"{what} pictures are right than with plain guidance: {listed}."
    if same := [name for name in whole if name not in (*better, *worse)]:
        count = by[UNCUT, "right"].rounds
        yield f"No difference that {count} prompts can tell from none: {'; '.join(same)}."
    for name in adaptive:
        rows, right = by[name, "rows"].median, by[name, "right"]
        if (at := _at_rows(cuts.measured, rows)) is not None:
            yield (
                f"{name} computes {rows:.1f} % of the rows and has {right.median:.1f} % right "
                f"({right.lower:.1f} to {right.upper:.1f}); a fixed cut of as many rows, between "
                f"those measured on {cuts.prompts} prompts, has {at:.1f} %."
            )


def measured_cuts(settings: Mapping[str, Any]) -> Cuts:
    """Return the fixed cuts of cut_quality.py, where it was run with the same settings but for the
    number of prompts."""
    path = RESULTS / "cut_quality-torch.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"settings": {}}
    prompts = found["settings"].get("prompts", 0)
    if {**found["settings"], "prompts": 0} != {**settings, "prompts": 0}:
        return Cuts(prompts, ())
    by = {(item["name"], item["case"]): item["median"] for item in found["figures"]}
    cuts = [name for name, case in by if name.startswith("CFGCutoff") and case == "rows"]
    return Cuts(prompts, [(by[name, "rows"], by[name, "right"]) for name in cuts])


def _at_rows(cuts: Sequence[tuple[float, float]], rows: float) -> float | None:
    """Return what is right at so many rows, on the lines between the cuts; None outside of them."""
    found = sorted(cuts)
    for (x, y), (after, then) in pairwise(found):
        if x <= rows <= after:
            return y + (then - y) * (rows - x) / (after - x)
    return None


def sheet(settings: Settings) -> Image.Image:
    """Return a row of pictures for each way, from the same prompts and noise."""
    tile, label, margin = 64, 330, 4
    studio, font = Studio(settings), ImageFont.load_default(size=12)
    edge, ways = tile + margin, settings.ways
    made = Image.new("RGB", (label + edge * len(SHOWN), edge * len(ways) + margin), "white")
    draw = ImageDraw.Draw(made)
    for row, (name, way) in enumerate(ways.items()):
        draw.text((margin, row * edge + tile // 2 - 6), name, fill="black", font=font)
        pictures, _ = way.draw(studio, SHOWN)
        for column, picture in enumerate(pictures):
            made.paste(picture, (label + column * edge, margin + row * edge))
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    made = parser(__doc__, ["torch"], repetitions=None)
    add = made.add_argument
    add("--prompts", type=int, default=500, help="default: 500")
    add("--steps", type=int, default=20, help="of a run; default: 20")
    add("--guidance", type=float, default=BEST_GUIDANCE, help=f"default: {BEST_GUIDANCE}")
    add("--processes", type=int, default=os.cpu_count() or 1, help="default: one for each core")
    add("--ways", nargs="+", choices=list(WAYS)[1:], metavar="WAY", default=list(WAYS)[1:])
    picture = RESULTS.parent / "images" / "rule_quality.png"
    add("--picture", type=Path, default=picture, help="default: docs/images/rule_quality.png")
    add("--draw", action="store_true", help="draw the sheet, and measure nothing")
    options = made.parse_args(arguments)
    if options.prompts < len(SHOWN) or options.steps < 2 or options.processes < 1:
        made.error(f"--prompts must be at least {len(SHOWN)}, --steps 2, --processes 1")
    ways = {name: WAYS[name] for name in (UNCUT, *options.ways)}
    settings = Settings(options.prompts, options.steps, options.guidance, ways)
    if not options.draw:
        measure(settings, options)
    options.picture.parent.mkdir(parents=True, exist_ok=True)
    sheet(settings).save(options.picture, optimize=True)
    print(f"written: {options.picture}")
    return 0


def measure(settings: Settings, options: Any) -> None:
    """Generate, judge, and write the JSON."""
    outcomes = generate(settings, options.processes)
    scenes, _ = random_requests(settings.prompts, SEED)
    figures = list(figures_of(outcomes, scenes))
    path = os.path.relpath(options.picture, options.out.parent)
    said = {
        "prompts": settings.prompts,
        "DDIM steps": settings.steps,
        "guidance scale": settings.guidance,
        "seed": SEED,
    }
    write(
        options.out, "rule_quality", TITLE, METHOD, "torch", said, figures,
        notes=list(findings(figures, measured_cuts(said))),
        picture=("the same prompts and noise by each rule", path),
    )  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
