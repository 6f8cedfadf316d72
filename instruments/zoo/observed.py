"""Does what is seen of a loop agree with what is known of it?

Each run is made twice: by the facts, and as if nobody had proven them on this loop, so that its
first step with guidance is looked at. Both must end in the same latents; or the second is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from unicb import Callback, CFGCutoff, GuidanceInterval, UnsupportedPipelineError, bind
from unicb.pipelines import facts_for
from zoo.entry import Entry, Request
from zoo.fingerprints import taken_as
from zoo.framework import Framework
from zoo.measure import CUT, EXACT, SAME, error, has_none

#: What is asked of a loop: guidance that ends, and guidance that is off from the first step on.
ASKED = {
    "cut": lambda: CFGCutoff(cutoff_step_index=CUT),
    "off at first": lambda: GuidanceInterval(0.5, 1.0),
}


@dataclass(frozen=True)
class Observed:
    """``Observed`` says what came of one class with one request.

    Attributes:
        verdict: the outcome of the cut: "exact", "refused" (before anything is cut), "wrong",
            "failed" (without looking, too), "not built", or "no guidance".
        why: the reason, where it is not "exact".
        difference: largest difference of both runs' latents, in standard deviations.
        first: the same difference with guidance off from the first step on; None if that was not
            run.
    """

    verdict: str
    why: str = ""
    difference: float | None = None
    first: dict[str, Any] | None = None


def measure(entry: Entry, fx: Framework, pipeline: Any, request: Request) -> Observed:
    """Measure one class with one request."""
    facts = facts_for(pipeline)
    if facts is None or facts.cfg == "none":
        why = "" if facts is None else facts.why_none
        return Observed("no guidance" if has_none(facts) else "refused", why)
    try:
        plain = _run(entry, fx, pipeline, request)
    except Exception as failure:
        return Observed("failed", f"{type(failure).__name__}: {failure}")
    found = {name: _compared(entry, fx, pipeline, request, name, plain) for name in ASKED}
    first = found["off at first"]
    return Observed(**found["cut"], first=first)


def _run(
    entry: Entry, fx: Framework, pipeline: Any, request: Request, *callbacks: Callback
) -> npt.NDArray[Any]:
    """Return the latents at the end of a run."""
    latents: list[Any] = []
    name = facts_for(pipeline).batch_of  # type: ignore[union-attr]
    bound = bind(pipeline, *callbacks, _Latest(name, latents))
    fx.seed()
    pipeline(**entry.arguments(fx, pipeline, request), **bound)
    kept: npt.NDArray[Any] = fx.backend.ops.to_numpy(latents[-1])
    return kept


def _compared(
    entry: Entry,
    fx: Framework,
    pipeline: Any,
    request: Request,
    asked: str,
    plain: npt.NDArray[Any],
) -> dict[str, Any]:
    def run() -> npt.NDArray[Any]:
        return _run(entry, fx, pipeline, request, ASKED[asked]())

    try:
        known = run()
    except UnsupportedPipelineError as refusal:
        return {"verdict": "refused", "why": f"by the facts, too: {refusal}"}
    except Exception as failure:
        return {"verdict": "failed", "why": f"{type(failure).__name__}: {failure}"}
    try:
        with taken_as(type(pipeline), proven=False):
            seen = run()
    except UnsupportedPipelineError as refusal:
        return {"verdict": "refused", "why": str(refusal)}
    except Exception as failure:
        return {"verdict": "wrong", "why": f"{type(failure).__name__}: {failure}"}
    difference = error(seen, known)
    # The first step was computed whole in one of them, and cut in the other; and some loops make
    # the difference of that step larger, as much as they do what is asked of them.
    same = EXACT if asked == "cut" else max(SAME, SAME * error(known, plain))
    if difference >= same:
        why = "differs from what it gives by the facts"
        return {"verdict": "wrong", "why": why, "difference": difference}
    return {"verdict": "exact", "why": "", "difference": difference}


class _Latest(Callback):
    def __init__(self, name: str, latents: list[Any]) -> None:
        self.tensors, self._latents = (name,), latents

    def on_step_end(self, step: Any) -> None:
        self._latents[:] = [step[self.tensors[0]]]
