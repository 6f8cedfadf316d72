"""Guidance by a rule against runs without unicb: plain guidance, of the call's scale and of
another one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from unicb import GuidanceRule, RuleStep, bind
from unicb.errors import UnsupportedPipelineError
from unicb.ops import Tensor
from unicb.pipelines import facts_for
from zoo.entry import Entry, Request
from zoo.framework import Framework
from zoo.guidance import Runs
from zoo.measure import EXACT, error, has_none
from zoo.scales import another, scale_in


class Plain(GuidanceRule):
    """Combine as loops do by themselves."""

    def combine(
        self, unconditional: Tensor, conditional: Tensor, scale: float | Tensor, step: RuleStep
    ) -> Tensor:
        return unconditional + (conditional - unconditional) * scale


@dataclass(frozen=True)
class Ruled:
    """``Ruled`` says what one class did with one request.

    Attributes:
        verdict: "exact", "refused" (by ``bind``, or by an error before a wrong picture), "wrong",
            "failed" (the pipeline itself raised), "impossible" (it cannot do this case), "not
            built", or "no guidance" (the class has none; ``bind`` says so).
        why: the reason, where it is not "exact".
        difference: the largest difference from a reference, in standard deviations.
    """

    verdict: str
    why: str = ""
    difference: float | None = None


def measure(entry: Entry, fx: Framework, pipeline: Any, request: Request) -> Ruled:
    """Measure one class with one request."""
    facts = facts_for(pipeline)
    try:
        bind(pipeline, Plain())
    except UnsupportedPipelineError as refusal:
        return Ruled("no guidance" if has_none(facts) else "refused", str(refusal))
    runs = Runs(entry, fx, pipeline, request)
    try:
        runs.full = runs.plain(runs.meter())
    except Exception as failure:
        return Ruled("failed", f"{type(failure).__name__}: {failure}")
    try:
        made = _compared(runs)
    except UnsupportedPipelineError as refusal:
        made = Ruled("refused", str(refusal))
    except Exception as failure:
        made = Ruled("wrong", f"{type(failure).__name__}: {failure}")
    if error(runs.plain(runs.meter()), runs.full) > fx.repeats_to:
        return Ruled("wrong", "a plain run afterwards differs from one before")
    return made


def _compared(runs: Runs) -> Ruled:
    facts = runs.facts
    assert facts is not None
    scale = scale_in(runs.pipeline, facts, runs.arguments())
    assert scale is not None, "nobody knows the scale of its call"
    other = another(facts, scale)

    def reference() -> Any:
        return runs.plain(runs.meter(), other)

    wanted = reference()
    # A rule's scale is in the convention u + scale * (c - u), whatever the loop's is.
    more = facts.combination == "from_conditional"
    # Where a scale moves the latents by more than a deviation, what counts is a share of that.
    effect, largest = error(runs.full, wanted), 0.0
    # Of another scale than the call's; and of the call's, in a call with the other one.
    for what, rule, called in (
        ("another scale", Plain(other + more), None),
        ("the scale of the call", Plain(), other),
    ):
        found = runs.ours(rule, runs.meter(), called)
        difference = error(found, wanted)
        if not difference < EXACT * effect:
            wrong, _ = runs.compared(found, wanted, reference)
            if wrong:
                return Ruled("wrong", f"{what}: {wrong}", difference)
        largest = max(largest, difference)
    return Ruled("exact", "", largest)
