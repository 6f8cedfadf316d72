"""Is each step of a loop that calls no callback seen once, as it is, and do edits reach the loop?

Four runs of the same request from the same noise: a plain one, and one with a callback that only
looks, which must be the same to the bit, step by step and in what it returns; and one in which a
callback halves the latents of one step, held against a plain run in which the scheduler's answer
is halved there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from unicb import Callback, Step, bind
from unicb.errors import UnsupportedPipelineError
from unicb.pipelines import num_timesteps_of
from zoo.entry import Entry, Request
from zoo.framework import Framework
from zoo.loops import called, caller
from zoo.measure import error
from zoo.previews import Array, arrays

#: The step whose latents are edited.
EDITED = 1


@dataclass(frozen=True)
class Stepped:
    """``Stepped`` says what became of the steps of one class with one request.

    Attributes:
        verdict: "exact", "refused" (by ``bind``), "wrong", "failed" (the pipeline itself raised),
            "impossible" (the pipeline cannot do this case) or "not built".
        why: the reason, where it is not "exact".
        steps: number of steps that were seen; None if none was run.
    """

    verdict: str
    why: str = ""
    steps: int | None = None


@dataclass
class _Seen:
    """``_Seen`` holds what was seen of a run: the place of each step, and its latents; and what was
    returned."""

    steps: list[tuple[int, int, float]] = field(default_factory=list)
    latents: list[Array] = field(default_factory=list)
    output: list[Array] = field(default_factory=list)


class _Look(Callback):
    tensors = ("latents",)

    def __init__(self, seen: _Seen, edits: bool) -> None:
        self._seen, self._edits = seen, edits

    def on_step_end(self, step: Step) -> None:
        seen = self._seen
        seen.steps.append((step.index, step.num_timesteps, float(step.timestep)))
        seen.latents.append(step.ops.to_numpy(step["latents"]).copy())
        if self._edits and len(seen.steps) == EDITED + 1:
            step["latents"] = _halved(step["latents"])


def _halved(latents: Any) -> Any:
    """Return half of the latents, as whole numbers where they are tokens."""
    return latents // 2 if "int" in str(latents.dtype).lower() else latents * 0.5


class _Runs:
    def __init__(self, entry: Entry, fx: Framework, pipeline: Any, request: Request) -> None:
        self.entry, self.fx, self.pipeline, self.request = entry, fx, pipeline, request

    def plain(self, edits: bool = False) -> _Seen:
        seen = _Seen()

        def callback(pipe: Any, index: int, t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            seen.steps.append((index, num_timesteps_of(pipe), float(t)))
            seen.latents.append(self.fx.backend.ops.to_numpy(tensors["latents"]).copy())
            if edits and len(seen.steps) == EDITED + 1:
                tensors["latents"] = _halved(tensors["latents"])
            return tensors

        call = caller(self.entry, self.fx, self.pipeline, self.request)
        seen.output = list(arrays(call(self._arguments(), callback), self.fx))
        return seen

    def ours(self, edits: bool = False) -> _Seen:
        seen = _Seen()
        callbacks = bind(self.pipeline, _Look(seen, edits))
        seen.output = list(arrays(called(self.pipeline, callbacks, self._arguments()), self.fx))
        return seen

    def _arguments(self) -> dict[str, Any]:
        return dict(self.entry.arguments(self.fx, self.pipeline, self.request))

    def differ(self, a: _Seen, b: _Seen) -> str:
        """Say what is not the same in two runs; "" if all is."""
        if a.steps != b.steps:
            return f"the steps are {b.steps} instead of {a.steps}"
        for name in ("latents", "output"):
            pairs = zip(getattr(a, name), getattr(b, name), strict=True)
            if not all(self._same(x, y) for x, y in pairs):
                return f"its {name} differ"
        return ""

    def _same(self, a: Array, b: Array) -> bool:
        if a.shape == b.shape and a.tobytes() == b.tobytes():
            return True
        return bool(self.fx.repeats_to) and error(a, b) <= self.fx.repeats_to


def measure(entry: Entry, fx: Framework, pipeline: Any, request: Request) -> Stepped:
    """Measure one class with one request."""
    runs = _Runs(entry, fx, pipeline, request)
    try:
        bind(pipeline, _Look(_Seen(), edits=False))
    except UnsupportedPipelineError as refusal:
        return Stepped("refused", str(refusal))
    try:
        plain, edited = runs.plain(), runs.plain(edits=True)
    except Exception as failure:
        return Stepped("failed", f"{type(failure).__name__}: {failure}")
    if len(plain.steps) <= EDITED + 1 or not runs.differ(plain, edited):
        return Stepped("failed", "the edit changes nothing")
    try:
        why = runs.differ(plain, runs.ours())
        why = why and f"with a callback that only looks, {why}"
        if not why and (found := runs.differ(edited, runs.ours(edits=True))):
            why = f"with a callback that edits the latents, {found}"
    except Exception as failure:
        why = f"{type(failure).__name__}: {failure}"
    return Stepped("wrong" if why else "exact", why, len(plain.steps))
