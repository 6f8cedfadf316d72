"""Read loops that call no callback: their steps are noticed by ``scheduler.step``."""

from __future__ import annotations

import ast
import copy
import inspect
from types import CodeType
from typing import Any, NamedTuple, TypeAlias

from unicb.errors import UnsupportedPipelineError
from unicb.ops import TensorOps
from unicb.pipelines._around_step import AroundStep, LoopLocals
from unicb.pipelines._stepping import (
    SCHEDULER,
    OutputPart,
    Unclear,
    WrittenStepping,
    read_stepping,
)
from unicb.pipelines.by_hand import LoopByHand
from unicb.pipelines.source import CALLBACK, CallSource


class ScheduledLoop(NamedTuple):
    """A scheduled loop calls ``self.scheduler.step`` and no callback.

    Attributes:
        code: the bytecode in which the loop runs.
        written: what the source says about the loop's steps.
        around: what the loop does to its latents around the step; None if nothing.
    """

    code: CodeType
    written: WrittenStepping
    around: AroundStep | None

    @property
    def models(self) -> tuple[str, ...]:
        """Return the names of the models that the loop calls, denoisers first."""
        return self.written.models

    @property
    def latents(self) -> str:
        """Return the name of the local variable with the loop's latents."""
        return self.written.latents

    @property
    def keeps_scaled(self) -> bool:
        """Return whether the loop keeps the result of ``scheduler.scale_model_input`` as its
        latents."""
        return self.written.scales

    def part_at(self, line: int, out: Any) -> OutputPart:
        """Return which part of the scheduler's output the loop takes from the call of ``step`` in
        this line."""
        sites = self.written.sites
        if len(sites) == 1:
            return sites[0].part
        line -= self.code.co_firstlineno - 1
        return next((s.part for s in sites if s.first <= line <= s.last), sites[0].part)

    def own_rows(self, x: Any, loop_locals: LoopLocals) -> int | None:
        """Return how many of the stepped rows are the latents', if the loop steps each row twice;
        else None."""
        name = self.written.half
        half = loop_locals([name]).get(name) if name else None
        if half is None or 2 * int(half.shape[0]) != int(x.shape[0]):
            return None
        return int(half.shape[0])

    def own(self, stepped: Any, loop_locals: LoopLocals) -> Any:
        """Turn a tensor that the loop steps into the latents' form: each row once, in their
        shape."""
        if self.around is not None and self.around.reshapes:
            return self.around.kept(stepped, loop_locals)
        rows = self.own_rows(stepped, loop_locals)
        return stepped if rows is None else stepped[:rows]

    def as_stepped(self, own: Any, like: Any, ops: TensorOps, loop_locals: LoopLocals) -> Any:
        """Turn a tensor in the latents' form into the form in which the loop steps ``like``."""
        if self.around is not None:
            return self.around.to_step(own, loop_locals)
        return own if self.own_rows(like, loop_locals) is None else ops.concat([own, own])

    def num_timesteps(self, pipeline: Any, loop_locals: LoopLocals) -> int:
        """Return how many steps the loop takes in a pass: the length of what it iterates over,
        whose numbers are not read, since they may be on the device.

        Raises:
            UnsupportedPipelineError: what it iterates over has no length.
        """
        over = self.written.over
        found: Any = loop_locals([over]).get(over) if over else pipeline.scheduler.timesteps
        try:
            return len(found)
        except TypeError as error:
            raise UnsupportedPipelineError(
                f"how many steps {type(pipeline).__name__} takes is not known: its loop goes over "
                f"{over or 'scheduler.timesteps'}, a {type(found).__name__}"
            ) from error


#: How the steps of a loop without a callback are noticed.
Stepping: TypeAlias = ScheduledLoop | LoopByHand


def scheduled_loop(kind: type) -> ScheduledLoop | None:
    """Return the loop of a class that takes no step-end callback; None for one that does.

    Raises:
        UnsupportedPipelineError: the ends of its steps cannot be noticed; the message says why.
    """
    source = CallSource.of(kind)
    if CALLBACK in source.parameters:
        return None
    found = source.once(_read, source)
    if isinstance(found, ScheduledLoop):
        return found
    unclear = (
        ", and its code does not say that its **kwargs go where one is taken; if they do, say so "
        "by functools.wraps or a __signature__"
    )
    raise UnsupportedPipelineError(
        f"{kind.__name__} calls no callback at the end of a step: its __call__ takes no "
        f"{CALLBACK}{unclear if source.takes_any_keyword else ''}. Nor can its steps be seen from "
        f"its scheduler's calls: {found}"
    )


def _read(source: CallSource) -> ScheduledLoop | str:
    """Return the loop; or a text that says why its steps cannot be noticed."""
    why = "its code cannot be read"
    for call in source.calls:
        function = call.written.tree.body[0] if call.written.tree is not None else None
        if not isinstance(function, ast.FunctionDef) or call.code is None:
            return why
        try:
            written = read_stepping(function)
        except Unclear as error:
            why = str(error)
        else:
            return ScheduledLoop(call.code, written, _around(call, written))
        if "super" not in call.code.co_names:
            break
    return why


def _around(call: CallSource, written: WrittenStepping) -> AroundStep | None:
    if written.around is None:
        return None
    return AroundStep(written.around, inspect.unwrap(call.kind.__call__).__globals__)


def check_scheduler(pipeline: Any, loop: Stepping) -> None:
    """Raise UnsupportedPipelineError if the pipeline has no scheduler whose steps can be seen."""
    scheduler = getattr(pipeline, SCHEDULER, None)
    if not callable(getattr(scheduler, "step", None)):
        raise UnsupportedPipelineError(
            f"{type(pipeline).__name__} calls no callback at the end of a step, and has no "
            "scheduler with a step to tell its steps by"
        )
    if loop.keeps_scaled and not _leaves_as_it_is(scheduler):
        raise UnsupportedPipelineError(
            f"the loop of {type(pipeline).__name__} calls no callback, and changes {loop.latents} "
            f"otherwise than by scheduler.step: a {type(scheduler).__name__} scales them"
        )


def _leaves_as_it_is(scheduler: Any) -> bool:
    """Return whether ``scale_model_input`` returns its argument unchanged. It is called on a copy,
    since some schedulers note the call."""
    sample = object()
    try:
        return copy.copy(scheduler).scale_model_input(sample, 0) is sample
    except Exception:  # it may fail on this sample
        return False


__all__ = ["OutputPart", "ScheduledLoop", "Stepping", "check_scheduler", "scheduled_loop"]
