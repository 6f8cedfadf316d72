"""Count the rounds of a loop that the user wrote: the length of what its ``for`` iterates over."""

from __future__ import annotations

import ast
from types import FrameType
from typing import Any

from unicb.errors import UnsupportedPipelineError
from unicb.pipelines._stepping import below_wrappers
from unicb.pipelines._written import loop_around
from unicb.pipelines.by_hand import Loop
from unicb.pipelines.target import Target
from unicb.run.loop import id_of, loop_locals

_NOTHING = object()


def note_rounds(target: Target, frame: FrameType) -> None:
    """Note how many rounds a user's own loop has, when a pass begins in this frame."""
    loop = target.pipeline
    if isinstance(loop, Loop):
        loop.num_timesteps = rounds_of(frame) if loop.said is None else loop.said


def stepping_frame(frame: FrameType | None) -> FrameType | None:
    """Return the innermost frame, from ``frame`` outwards, that is in a ``for`` whose code names a
    ``step``; None if there is none."""
    while frame is not None:
        if "step" in frame.f_code.co_names and _goes_over(frame) is not None:
            return frame
        frame = frame.f_back
    return None


def rounds_of(frame: FrameType) -> int:
    """Return the number of rounds of the innermost ``for`` that the frame is in: the length of what
    it iterates over, which is found by its name.

    Raises:
        UnsupportedPipelineError: the code does not show what that is, or it has no length.
    """
    found = _value(_goes_over(frame), frame)
    try:
        return len(found)
    except TypeError as error:
        raise UnsupportedPipelineError(
            "how many steps this loop takes is not to be read off its code: say it in "
            "Loop(..., num_timesteps=...)"
        ) from error


def _goes_over(frame: FrameType) -> ast.expr | None:
    loop = loop_around(frame.f_code, frame.f_lineno)
    return below_wrappers(loop.iter) if isinstance(loop, ast.For) else None


def _value(node: ast.expr | None, frame: FrameType) -> Any:
    """Evaluate a name in the frame, or an attribute or slice of one."""
    if isinstance(node, ast.Attribute):
        return getattr(_value(node.value, frame), node.attr, _NOTHING)
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Slice):
        ends = node.slice.lower, node.slice.upper, node.slice.step
        bounds = [None if end is None else _value(end, frame) for end in ends]
        whole = _value(node.value, frame)
        if all(isinstance(bound, int | None) for bound in bounds) and whole is not _NOTHING:
            return whole[slice(*bounds)]
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _value(node.operand, frame)
        return -value if isinstance(value, int) else _NOTHING
    if isinstance(node, ast.Name):
        # Not from f_locals: the frame would keep a copy of its locals, with all tensors.
        found = loop_locals(id_of(frame), [node.id])
        return found.get(node.id, frame.f_globals.get(node.id, _NOTHING))
    return _NOTHING
