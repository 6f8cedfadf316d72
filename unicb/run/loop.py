"""Which loop is calling, and is it still running?

A pipeline tells its callbacks nothing of where a run ends: after an exception in its scheduler,
or when a user presses Ctrl-C, nobody is called. What unicb leaves on a pipeline for the rest of
a run must not outlive it, so a run is tied to the stack frame of its loop.

A frame is known by its ``id`` and its code only, never held: a frame that is held keeps all of its
tensors. Such an id may be given out again once the frame is gone, even to a further call of the
same loop, which is why a run also watches the dict that it handed to the loop (see ``run.py``):
while that is alive, so is the frame.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable
from types import CodeType, FrameType
from typing import Any, NamedTuple

from unicb.pipelines.source import CALLBACK, CallSource

_GENERATORS = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


def code_of(pipeline_class: type) -> frozenset[CodeType]:
    """The code of all methods of the class and its bases, below any decorators."""
    return CallSource.of(pipeline_class).codes


class FrameId(NamedTuple):
    """Which frame it is, among those that are there at a time."""

    number: int
    code: CodeType


def _id_of(frame: FrameType) -> FrameId:
    return FrameId(id(frame), frame.f_code)


def loop_frame_id(pipeline: Any, frame: FrameType) -> FrameId:
    """Of the innermost frame, from ``frame`` outwards, that runs the pipeline's own code.

    Of ``frame`` itself where none does, as when a loop is a function outside the class.
    """
    codes = code_of(type(pipeline))
    outer: FrameType | None = frame
    while outer is not None:
        if outer.f_code in codes:
            return _id_of(outer)
        outer = outer.f_back
    return _id_of(frame)


def pin_callers() -> None:
    """Have objects made for the frames of all of our callers, as Python does when asked only.

    Made later, one of them might get the id of a loop's frame that has just died, and would pass
    for it.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        frame = frame.f_back


def runs_code_of(pipeline_class: type, frame: FrameType | None) -> bool:
    """Whether ``frame``, or one that (directly or not) called it, runs the class's own code."""
    codes = code_of(pipeline_class)
    while frame is not None:
        if frame.f_code in codes:
            return True
        frame = frame.f_back
    return False


def calls_with(callback: Callable[..., Any]) -> bool:
    """Whether one of our callers was given this callback."""
    return _given(callback, sys._getframe(1)) is not None


def loop_frame_given(pipeline: Any, callback: Callable[..., Any]) -> FrameId | None:
    """Of the loop that was given this callback and is calling us, as :func:`loop_frame_id` will
    tell it once it calls back; None if there is none."""
    frame = _given(callback, sys._getframe(1))
    return None if frame is None else loop_frame_id(pipeline, frame)


def _given(callback: Callable[..., Any], frame: FrameType | None) -> FrameType | None:
    """The innermost frame, from ``frame`` outwards, that was given this callback."""
    while frame is not None:
        if CALLBACK in frame.f_code.co_varnames:
            found = loop_locals(_id_of(frame), [CALLBACK])
            if found.get(CALLBACK) == callback:
                return frame
        frame = frame.f_back
    return None


def loop_locals(frame_id: FrameId, names: Iterable[str]) -> dict[str, Any]:
    """Values of the frame's locals by these names; it must be one of our callers."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and _id_of(frame) != frame_id:
        frame = frame.f_back
    if frame is None:
        return {}
    values = frame.f_locals
    found = {name: values[name] for name in names if name in values}
    if type(values) is dict:
        values.clear()  # before Python 3.13 a copy, which the frame keeps, with all of its tensors
    return found


def calls_us(frame_id: FrameId) -> bool:
    """Whether the frame is one of those that (directly or not) called this function."""
    return _on_stack(frame_id, sys._getframe(1))


def runs_in_thread(frame_id: FrameId, thread_id: int) -> bool:
    """Whether the frame is being executed in the thread."""
    while True:
        outermost = _walk(frame_id, sys._current_frames().get(thread_id))
        if not isinstance(outermost, CodeType):
            return outermost
        # A generator that has just been suspended has no callers, and we have seen nothing.


def _on_stack(frame_id: FrameId, frame: FrameType | None) -> bool:
    return _walk(frame_id, frame) is True


def _walk(frame_id: FrameId, frame: FrameType | None) -> bool | CodeType:
    """Whether the frame is among these; the outermost one's code, if that is a generator's."""
    code: CodeType | None = None
    while frame is not None:
        code = frame.f_code
        if id(frame) == frame_id.number and code is frame_id.code:
            return True
        frame = frame.f_back
    return code if code is not None and code.co_flags & _GENERATORS else False
