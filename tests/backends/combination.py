"""How each class combines the two predictions, and with which scale: the facts against its code."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from guided_loop import GuidedLoop, comparisons, loop_of, source_of
from ways import framework

from unicb.pipelines import PipelineFacts
from zoo.coverage import classes, facts_named

#: Classes whose code this cannot follow. Running them measures the same: coverage-guidance.
NOT_READ = {
    "Ideogram4Pipeline": "guides by a tensor of weights, made of the schedule before the loop",
    "Kandinsky6TI2VAPipeline": "combines pictures and sound in a generator expression",
}
FORMULAS: Mapping[str, Callable[[float, float, float], float]] = {
    "from_unconditional": lambda u, c, g: u + g * (c - u),
    "from_conditional": lambda u, c, g: c + g * (c - u),
}
#: u, c, g, and the scale in places that the facts do not name.
NUMBERS = ((2.0, 5.0, 7.0, 11.0), (-3.0, 4.5, 2.5, 6.0))


@cache
def guided_classes(name: str) -> Mapping[str, tuple[Any, PipelineFacts]]:
    """All classes of the framework that have guidance, by name, with their facts."""
    found = ((title, kind, facts_named(title)) for title, kind in classes(framework(name)).items())
    return {title: (kind, facts) for title, kind, facts in found if facts and facts.cfg != "none"}


def contradictions(name: str) -> list[str]:
    """Classes whose code combines otherwise, or with another scale, than their facts say."""
    checked = (
        contradiction(title, kind, facts) for title, (kind, facts) in guided_classes(name).items()
    )
    return [found for found in checked if found is not None]


def contradiction(title: str, kind: Any, facts: PipelineFacts) -> str | None:
    """What is wrong with a class's facts; None if nothing is."""
    wrong = (_wrong(kind, facts, numbers, title in NOT_READ) for numbers in NUMBERS)
    return next((f"{title}: {found}" for found in wrong if found), None)


def _wrong(
    kind: Any, facts: PipelineFacts, numbers: tuple[float, float, float, float], not_read: bool
) -> str | None:
    stepped = GuidedLoop(kind, facts, *numbers).run()
    u, c, g, _ = numbers
    values = {formula: function(u, c, g) for formula, function in FORMULAS.items()}
    fit = {name for name, value in values.items() if stepped and _all_are(stepped, value)}
    if facts.combination == "other" or not_read:
        return f"combines {fit.pop()}, which was thought to be another" if fit else None
    if fit != {facts.combination}:
        wanted = values[facts.combination]
        return f"steps with {stepped}, where {facts.combination} gives {wanted}"
    return None


def _all_are(stepped: list[float], value: float) -> bool:
    return all(math.isclose(abs(x), abs(value)) for x in stepped)


def unnoticed(name: str) -> Iterator[str]:
    """Classes of which wrong facts would pass for right ones: the check proves nothing there."""
    for title, (kind, facts) in guided_classes(name).items():
        if facts.combination == "other" or title in NOT_READ:
            continue
        other = {"from_unconditional": "from_conditional", "from_conditional": "from_unconditional"}
        if not contradiction(title, kind, replace(facts, combination=other[facts.combination])):
            yield f"{title}: another combination"
        is_local = not facts.scale_names[0].startswith("self.")
        elsewhere = ("self._guidance_scale",) if is_local else ("guidance_scale",)
        if not contradiction(title, kind, replace(facts, scale_names=elsewhere)):
            yield f"{title}: the scale in another place"


def wrong_thresholds(name: str) -> Iterator[str]:
    """Classes that ask for another scale to guide than their facts say."""
    for title, (kind, facts) in guided_classes(name).items():
        names = {n.removeprefix("self.").removeprefix("_") for n in facts.scale_names}
        if "true_cfg_scale" not in names:
            names.add("guidance_scale")
        asked = set(comparisons(kind, tuple(names)))
        found = max((n for operation, n in asked if operation is ast.Gt), default=-math.inf)
        if found != facts.guided_above:
            yield f"{title}: asks {asked}, where its facts say {facts.guided_above}"


def wrong_own_schedules(name: str) -> Iterator[str]:
    """Classes whose loop sets the scale that it reads, under a flag that their facts do not say."""
    for title, (kind, facts) in guided_classes(name).items():
        loop = loop_of(kind)
        found = {
            ast.unparse(node.test)
            for node in (ast.walk(loop) if loop else ())
            if isinstance(node, ast.If)
            and any(
                isinstance(part, ast.Assign) and ast.unparse(part.targets[0]) in facts.scale_names
                for part in node.body
            )
            and not any(name.startswith("current_") for name in facts.scale_names)
        }
        if found != ({facts.scale_set_if} if facts.scale_set_if else set()):
            yield f"{title}: under {found}, where its facts say {facts.scale_set_if!r}"


def missing_flags(name: str) -> Iterator[str]:
    """Classes that ask for no flag of their configuration where their facts say one."""
    for title, (kind, facts) in guided_classes(name).items():
        code = ast.unparse(source_of(kind) or ast.Module([], []))
        if facts.other_if and f"if self.config.{facts.other_if}:" not in code:
            yield f"{title}: {facts.other_if}"
