"""Find the loop of a call among those that have called us."""

from __future__ import annotations

from collections.abc import Callable
from sys import _getframe
from types import FrameType
from typing import TYPE_CHECKING, Any

from unicb.pipelines.target import Target
from unicb.run.loop import (
    FrameId,
    Loop,
    ScopedLoop,
    WatchedLoop,
    frame_running,
    id_of,
    loop_frame_given,
    loop_frame_id,
    loop_locals,
)
from unicb.run.rounds import note_rounds, stepping_frame
from unicb.run.scope import Scope, innermost

if TYPE_CHECKING:
    from unicb.run.run import Run


def loop_calling(given: Callable[..., Any], target: Target, scope: Scope | None) -> FrameId | None:
    """Return the loop of a call that is calling us; None where the caller is another's.

    Args:
        given: what the pipeline was given as its callback.
        target: the pipeline.
        scope: of a call that unicb makes itself; None where somebody else makes it.
    """
    frame_id = _calling(given, target, scope)
    if frame_id is None:
        return None
    # The error for the loop of another pipeline is raised at its first step's end.
    owner = loop_locals(frame_id, ["self"]).get("self", target.pipeline)
    is_ours = owner is target.pipeline or not hasattr(owner, "_callback_tensor_inputs")
    return frame_id if is_ours else None


def _calling(given: Callable[..., Any], target: Target, scope: Scope | None) -> FrameId | None:
    if scope is not None and innermost() is not scope:
        return None
    if target.block_step is not None:
        return target.block_step.frame_id
    if target.scheduled is not None and target.scheduled.code is not None:
        return frame_running(target.scheduled.code, _getframe(1))
    if target.scheduled is not None:
        frame = stepping_frame(_getframe(1))
        if frame is not None:
            note_rounds(target, frame)
        return None if frame is None else id_of(frame)
    found = loop_frame_given(target.pipeline, given)
    return found if scope is None else found or loop_frame_id(target.pipeline, _getframe(1))


def loop_stepping(target: Target, pipeline: Any, frame: FrameType) -> FrameId:
    """Return the loop whose step has ended, among those that (directly or not) have called this
    frame."""
    if target.block_step is not None:
        return target.block_step.frame_id
    inner = target.blocks.inner if target.blocks is not None else None
    found = frame_running(inner.code, frame) if inner is not None else None
    return found or loop_frame_id(pipeline, frame)


def loop_of(frame_id: FrameId, scope: Scope | None, run: Run) -> Loop:
    """Return the run's loop, whose end is known by the call's scope, or is watched for."""
    if scope is not None:
        return ScopedLoop(frame_id, scope)
    return WatchedLoop(frame_id, run.finish)
