"""Is guidance cut exactly on a pipeline, and what does that save?

Three runs of the same request from the same noise: full guidance; the reference, in which both
halves are computed to the end and the unconditional one is overwritten with the conditional one
after the cut; and the run that unicb cuts. "Exact" is a largest difference between the last two
below 1e-5 of the latents' standard deviation, in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from unicb import Callback, CFGCutoff, PipelineFacts, Step, UnsupportedPipelineError, bind
from unicb.pipelines import facts_for
from zoo.entry import Entry, Request
from zoo.framework import Framework
from zoo.loops import called, caller

EXACT = 1e-5
#: Two calls on different numbers of rows may differ by more than two runs on the same.
SAME = 1e-4
#: The reference must differ from full guidance by more than this, or the case proves nothing.
DIFFERENT = 1e-3
CUT = 1


@dataclass(frozen=True)
class Outcome:
    """An outcome says what one class did with one request.

    Attributes:
        verdict: "exact", "refused" (by ``bind``, or by an error before a wrong picture), "wrong",
            "failed" (the pipeline itself raised), "impossible" (the pipeline cannot do this case),
            "not built", or "no guidance" (the class has none; ``bind`` says so).
        why: the reason, where it is not "exact".
        difference: largest difference from the reference, in standard deviations.
        saved: share of the models' rows that the steps after the cut leave out.
        effect: largest difference of the reference from full guidance, likewise.
    """

    verdict: str
    why: str = ""
    difference: float | None = None
    saved: float | None = None
    effect: float | None = None


class Meter:
    """Watch a pipeline's models during a run: which are called in which step, with how many rows.

    With ``reference``, it overwrites the unconditional part of the denoiser's output after the cut.
    """

    def __init__(
        self,
        fx: Framework,
        pipeline: Any,
        facts: PipelineFacts | None,
        batch: int,
        reference: bool = False,
    ) -> None:
        self.reference = reference
        self.fx, self.pipeline, self.facts, self.batch = fx, pipeline, facts, batch
        self.active = False
        self.steps: list[list[tuple[str, int]]] = [[]]
        self.after_cut: list[bool] = [False]
        self.first_outputs: list[Any] = []
        self.latents: npt.NDArray[Any] | None = None
        self._done = 0
        self._calls = 0
        self._kept: Any = None
        self._waiting: list[Any] = []

    def step_end(self, num_timesteps: int, latents: Any) -> None:
        self.latents = self.fx.backend.ops.to_numpy(latents)
        # Not by the index: some loops count each part of a video anew, but the timesteps of all.
        last = self._done + 1 >= num_timesteps
        self.active = self._done >= CUT and not last
        self._done = 0 if last else self._done + 1
        self.steps.append([])
        self.after_cut.append(self.active)
        self._calls = 0
        self._kept, self._waiting = None, []

    def work(self) -> tuple[int, int]:
        """Return the rows over all models: in the steps after the cut, and in those before it."""
        pairs = list(zip(self.steps, self.after_cut, strict=True))
        return tuple(  # type: ignore[return-value]
            sum(rows for step, cut in pairs if cut == after for _, rows in step)
            for after in (True, False)
        )

    @contextmanager
    def watching(self) -> Iterator[None]:
        with ExitStack() as undo:
            for name, model in self.pipeline.components.items():
                if self.fx.is_module(model) and "text_encoder" not in name and "vae" not in name:
                    undo.callback(self._spy(name, model))
            yield

    def _spy(self, name: str, model: Any) -> Callable[[], None]:
        base, forward = type(model), self.fx.forward
        meter = self

        def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
            return meter._call(name, partial(getattr(base, forward), self), args, kwargs)

        # A class of this module, as its call is: one of the model's own would have been replaced.
        model.__class__ = type(base.__name__, (base,), {forward: watched})
        return lambda: setattr(model, "__class__", base)

    def _call(self, name: str, call: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.steps[-1].append((name, self._rows((*args, *kwargs.values()))))
        out = call(*args, **kwargs)
        facts = self.facts
        fills_cache = isinstance(out, tuple) and out[0] is None
        if facts is None or name not in facts.denoisers or fills_cache:
            return out
        if len(self.steps) == 1:
            self.first_outputs.append(_tensors(out, self.fx))
        if not (self.active and self.reference):
            return out
        if facts.cfg == "batch":
            return self._overwrite_rows(out, facts)
        return self._overwrite_call(out, facts)

    def _rows(self, values: tuple[Any, ...]) -> int:
        for value in values:
            if self.facts is not None and self.facts.listed and isinstance(value, list):
                return len(value)
            if self.fx.backend.is_tensor(value) and len(value.shape) > 1:
                return int(value.shape[0])
        return 0

    def _overwrite_rows(self, out: Any, facts: PipelineFacts) -> Any:
        def take(blocks: Any, order: tuple[str, ...]) -> list[Any]:
            conditional = blocks[order.index("conditional")]
            return [
                conditional if p == "unconditional" else b
                for p, b in zip(order, blocks, strict=True)
            ]

        def tensor(x: Any) -> Any:
            rows = int(x.shape[0])
            order = blocks_of(rows, self.batch, facts)
            if rows == self.batch or rows % (len(order) * self.batch):
                return x
            return _cat(take(self.fx.backend.ops.chunk(x, len(order)), order), self.fx)

        def listed(x: list[Any]) -> list[Any]:
            n = len(facts.order)
            if len(x) != n * self.batch:
                return x
            blocks = [x[i * self.batch : (i + 1) * self.batch] for i in range(n)]
            return [item for block in take(blocks, facts.order) for item in block]

        return _map(out, tensor, self.fx, listed if facts.listed else None)

    def _overwrite_call(self, out: Any, facts: PipelineFacts) -> Any:
        part = facts.order[self._calls % len(facts.order)]
        self._calls += 1
        if self._calls % len(facts.order) == 1:
            self._kept, self._waiting = None, []
        if part == "conditional":
            self._kept = out
            for waiting in self._waiting:
                for target, source in zip(
                    _tensors(waiting, self.fx), _tensors(out, self.fx), strict=True
                ):
                    self.fx.copy_into(target, source)
            return out
        if self._kept is not None:
            return _tail(self._kept, out, self.fx)
        self._waiting.append(out)
        return out


def _tail(kept: Any, out: Any, fx: Framework) -> Any:
    """Return ``kept``; of a sequence that is longer than that of ``out``, the end."""
    lengths = [x.shape[1] for x in _tensors(out, fx) if len(x.shape) == 3]
    if not lengths:
        return kept
    return _map(kept, lambda x: x[:, -lengths[0] :] if len(x.shape) == 3 else x, fx)


def _tensors(value: Any, fx: Framework) -> list[Any]:
    found: list[Any] = []
    _map(value, lambda x: found.append(x) or x, fx)
    return found


def _cat(blocks: list[Any], fx: Framework) -> Any:
    arrays = [fx.backend.ops.to_numpy(block) for block in blocks]
    return fx.backend.ops.from_numpy(np.concatenate(arrays), blocks[0])


def _map(value: Any, function: Any, fx: Framework, listed: Any = None) -> Any:
    """Apply ``function`` to every tensor in nested containers (``listed`` to lists)."""
    if fx.backend.is_tensor(value):
        return function(value) if len(value.shape) else value
    if listed is not None and isinstance(value, list):
        return listed(value)
    if isinstance(value, Mapping):
        items = {key: _map(item, function, fx, listed) for key, item in value.items()}
        return items if type(value) is dict else type(value)(**items)
    if isinstance(value, list | tuple):
        return type(value)([_map(item, function, fx, listed) for item in value])
    return value


class _Recorder(Callback):
    def __init__(self, meter: Meter, name: str) -> None:
        self.tensors = (name,)
        self._meter, self._name = meter, name

    def on_step_end(self, step: Step) -> None:
        self._meter.step_end(step.num_timesteps, step[self._name])


def run(entry: Entry, fx: Framework, pipeline: Any, request: Request, meter: Meter) -> None:
    """Run without unicb; ``meter`` sees it."""
    name = meter.facts.batch_of if meter.facts is not None else "latents"

    def callback(pipe: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        n = getattr(pipe, "num_timesteps", None)
        n = len(pipe.scheduler.timesteps) if n is None else n
        meter.step_end(n, tensors[name])
        return tensors

    call = caller(entry, fx, pipeline, request)
    with meter.watching():
        call(entry.arguments(fx, pipeline, request), callback, name)


def cut(entry: Entry, fx: Framework, pipeline: Any, request: Request, meter: Meter) -> None:
    """Run with unicb's cut."""
    name = meter.facts.batch_of if meter.facts is not None else "latents"
    callbacks = bind(pipeline, CFGCutoff(cutoff_step_index=CUT), _Recorder(meter, name))
    with meter.watching():
        called(pipeline, callbacks, entry.arguments(fx, pipeline, request))


def has_none(facts: PipelineFacts | None) -> bool:
    """Return whether a class has no guidance to cut, rather than one that cannot be cut."""
    why = "" if facts is None or facts.cfg != "none" else facts.why_none
    return why.startswith("has no classifier-free guidance")


def error(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    """Return the largest difference, in standard deviations of ``b``; infinite if something is no
    number."""
    if a.shape != b.shape or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return float("inf")
    return float(np.abs(a - b).max() / b.std())


def measure(entry: Entry, fx: Framework, pipeline: Any, request: Request) -> Outcome:
    """Measure one class with one request."""
    facts = facts_for(pipeline)
    try:
        bind(pipeline, CFGCutoff(0.5))
    except UnsupportedPipelineError as refusal:
        return Outcome("no guidance" if has_none(facts) else "refused", str(refusal))

    def metered(reference: bool, runner: Any = run) -> Meter:
        meter = Meter(fx, pipeline, facts, request.rows, reference)
        runner(entry, fx, pipeline, request, meter)
        assert meter.latents is not None, "the callback was never called"
        return meter

    try:
        full, reference = metered(False), metered(True)
    except Exception as failure:
        return Outcome("failed", f"{type(failure).__name__}: {failure}")
    effect = error(full.latents, reference.latents)
    if not DIFFERENT < effect < float("inf"):
        try:
            metered(False, cut)
        except UnsupportedPipelineError as refusal:  # so the reference need not know this run
            return Outcome("refused", str(refusal))
        return Outcome(
            "failed", "guidance does nothing here, or something is no number", effect=effect
        )
    try:
        ours = metered(False, cut)
    except UnsupportedPipelineError as refusal:
        return Outcome("refused", str(refusal), effect=effect)
    except Exception as failure:
        return Outcome("wrong", f"{type(failure).__name__}: {failure}", effect=effect)
    difference = error(ours.latents, reference.latents)
    before, after = full.work()[0], ours.work()[0]
    saved = 1 - after / before
    numbers = {"difference": difference, "saved": saved, "effect": effect}
    if difference >= EXACT:
        return Outcome("wrong", "differs from the reference", **numbers)
    if saved <= 0:
        return Outcome("wrong", "saves nothing", **numbers)
    ideal = min(
        facts.order[:blocks].count("unconditional") / blocks
        for blocks in range(facts.least_blocks, len(facts.order) + 1)
    )
    if saved < ideal - 0.01 and not entry.saves_less:
        return Outcome("wrong", f"saves {saved:.0%} instead of {ideal:.0%}", **numbers)
    if error(metered(False).latents, full.latents) > fx.repeats_to:
        return Outcome("wrong", "a plain run afterwards differs from one before", **numbers)
    try:
        why = _conditional_is_wrong(entry, fx, pipeline, request, full)
        why = why or _off_is_not_left_alone(entry, fx, pipeline, request)
    except Exception as failure:
        why = f"with guidance off: {type(failure).__name__}: {failure}"
    if why:
        return Outcome("wrong", why, **numbers)
    return Outcome("exact", "", **numbers)


def _off_is_not_left_alone(entry: Entry, fx: Framework, pipeline: Any, request: Request) -> str:
    """Say why a run without guidance is not what it is without unicb; "" if it is."""
    if entry.off_differs or request.rows > 1:
        return ""
    unguided = replace(request, guided=False)
    facts = facts_for(pipeline)
    alone, ours = (Meter(fx, pipeline, facts, request.rows) for _ in range(2))
    run(entry, fx, pipeline, unguided, alone)
    cut(entry, fx, pipeline, unguided, ours)
    assert alone.latents is not None
    assert ours.latents is not None
    if error(ours.latents, alone.latents) <= fx.repeats_to:
        return ""
    return "with guidance off, a run with the cut differs from one without"


def _conditional_is_wrong(
    entry: Entry, fx: Framework, pipeline: Any, request: Request, full: Meter
) -> str:
    """Say why what unicb takes for the conditional part is not what guidance off computes; "" if it
    is.

    This holds the facts against the pipeline's own switch, which knows nothing of them.
    """
    if entry.off_differs:
        return ""
    facts = full.facts
    assert facts is not None
    off = Meter(fx, pipeline, facts, request.rows)
    run(entry, fx, pipeline, replace(request, guided=False), off)
    to_numpy = fx.backend.ops.to_numpy
    expected = to_numpy(off.first_outputs[0][0])
    at = facts.order.index("conditional")
    if facts.cfg != "batch":
        got = to_numpy(full.first_outputs[at][0])
    elif facts.listed and len(full.first_outputs[0]) > 1:
        got = to_numpy(full.first_outputs[0][at * request.rows])
    else:
        output = full.first_outputs[0][0]
        blocks = len(blocks_of(int(output.shape[0]), request.rows, facts))
        got = to_numpy(fx.backend.ops.chunk(output, blocks)[at])
        # With guidance off, what is perturbed follows the conditional rows.
        expected = expected[: len(got)]
    if error(got, expected) < SAME:
        return ""
    return "the conditional part is not what the pipeline computes with guidance off"


def blocks_of(rows: int, batch: int, facts: PipelineFacts) -> tuple[str, ...]:
    """Return the blocks of so many rows: all, or the first of them in runs that do without the
    rest."""
    blocks = rows // batch
    return facts.order[:blocks] if facts.least_blocks <= blocks else facts.order
