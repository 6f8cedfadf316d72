"""Find out which loop is calling, and whether it is still running.

A pipeline does not call its callbacks when a run ends by an exception or by Ctrl-C. Whatever unicb
changes on a pipeline for a run must not outlive the run, so a run is tied to the stack frame of its
loop.

A frame is identified by its ``id`` and its code only, and never referred to, since that would keep
all of its tensors alive. Python may give the id to another frame later, even to a further call of
the same loop. So a run also watches the dict that it handed to the loop (see ``run.py``): while the
dict is alive, so is the frame.
"""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Callable, Iterable
from types import CodeType, FrameType
from typing import Any, NamedTuple, Protocol
from weakref import ref

from unicb.ops import Tensor
from unicb.pipelines.source import CALLBACK, CallSource
from unicb.run.scope import Scope, innermost
from unicb.run.uncollected import uncollected

_GENERATORS = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


def code_of(pipeline_class: type) -> frozenset[CodeType]:
    """Return the code of all methods of the class and its bases, below any decorators."""
    return CallSource.of(pipeline_class).codes


class FrameId(NamedTuple):
    """A frame's id distinguishes it from all other frames that exist at the same time."""

    number: int
    code: CodeType


def id_of(frame: FrameType) -> FrameId:
    return FrameId(id(frame), frame.f_code)


def loop_frame_id(pipeline: Any, frame: FrameType) -> FrameId:
    """Return the id of the innermost frame, from ``frame`` outwards, that runs the pipeline's own
    code.

    If no frame does, as with a loop in a function outside the class, return the id of the first
    frame outside of unicb.
    """
    codes = code_of(type(pipeline))
    outer: FrameType | None = frame
    while outer is not None:
        if outer.f_code in codes:
            return id_of(outer)
        outer = outer.f_back
    return id_of(outside(frame))


def frame_running(code: CodeType, frame: FrameType | None) -> FrameId | None:
    """Return the id of the innermost frame, from ``frame`` outwards, that runs this code; None if
    none does."""
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return None if frame is None else id_of(frame)


def outside(frame: FrameType) -> FrameType:
    """Return the innermost frame, from ``frame`` outwards, that is not unicb's own."""
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("unicb."):
        frame = frame.f_back
    return frame


def pin_callers() -> None:
    """Have objects made for the frames of all of our callers, as Python does when asked only.

    Made later, one of them might get the id of a loop's frame that has just died, and would pass
    for it.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        frame = frame.f_back


def runs_code_of(pipeline_class: type, frame: FrameType | None) -> bool:
    """Return whether ``frame``, or a frame that (directly or indirectly) called it, runs the
    class's own code."""
    codes = code_of(pipeline_class)
    while frame is not None:
        if frame.f_code in codes:
            return True
        frame = frame.f_back
    return False


def is_given(callback: Callable[..., Any]) -> bool:
    """Return whether one of our callers was given this callback."""
    return _given(callback, sys._getframe(1)) is not None


def is_given_anywhere(callback: Callable[..., Any]) -> bool:
    """Return whether a frame of any thread was given this callback."""
    own = threading.get_ident()
    with uncollected:
        return any(
            _given(callback, frame, ours=thread == own) is not None
            for thread, frame in sys._current_frames().items()
        )


def loop_frame_given(pipeline: Any, callback: Callable[..., Any]) -> FrameId | None:
    """Return the id of the loop's frame that was given this callback and is among our callers,
    equal to the id that :func:`loop_frame_id` finds in the callback; None if there is none."""
    frame = _given(callback, sys._getframe(1))
    return None if frame is None else loop_frame_id(pipeline, frame)


def _given(
    callback: Callable[..., Any], frame: FrameType | None, ours: bool = True
) -> FrameType | None:
    """Return the innermost frame, from ``frame`` outwards, that was given this callback. ``ours``
    says whether the frames are of this thread."""
    while frame is not None:
        if CALLBACK in frame.f_code.co_varnames:
            # Another thread's frame may be reading its locals at this moment.
            found = _locals_of(frame, [CALLBACK]) if ours else frame.f_locals
            if found.get(CALLBACK) == callback:
                return frame
        frame = frame.f_back
    return None


def loop_locals(frame_id: FrameId, names: Iterable[str]) -> dict[str, Any]:
    """Return the frame's local variables of these names; the frame must be one of our callers."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and id_of(frame) != frame_id:
        frame = frame.f_back
    return {} if frame is None else _locals_of(frame, names)


def _locals_of(frame: FrameType, names: Iterable[str]) -> dict[str, Any]:
    values = frame.f_locals
    found = {name: values[name] for name in names if name in values}
    # Before Python 3.13, f_locals of a function's frame is a copy that the frame keeps, with all
    # tensors. For a module's frame it is no copy, and a loop may be in a script itself.
    if type(values) is dict and frame.f_code.co_flags & inspect.CO_OPTIMIZED:
        values.clear()
    return found


def calls_us(frame_id: FrameId) -> bool:
    """Return whether the frame (directly or indirectly) called this function."""
    return _on_stack(frame_id, sys._getframe(1))


def runs_in_thread(frame_id: FrameId, thread_id: int) -> bool:
    """Return whether the frame is being executed in the thread."""
    while True:
        with uncollected:
            outermost = _walk(frame_id, sys._current_frames().get(thread_id))
        if not isinstance(outermost, CodeType):
            return outermost
        # A generator that was suspended just now has no callers, so the frame was not seen.


def _on_stack(frame_id: FrameId, frame: FrameType | None) -> bool:
    return _walk(frame_id, frame) is True


def _walk(frame_id: FrameId, frame: FrameType | None) -> bool | CodeType:
    """Return whether the frame is ``frame`` or one of its callers; if not, and the outermost one is
    a generator's, return that generator's code."""
    code: CodeType | None = None
    while frame is not None:
        code = frame.f_code
        if id(frame) == frame_id.number and code is frame_id.code:
            return True
        frame = frame.f_back
    return code if code is not None and code.co_flags & _GENERATORS else False


class Outputs(dict[str, Tensor]):
    """``Outputs`` is the dict that goes back into the loop, and can be referred to weakly.

    Loops keep it in a local variable from one step's end to the next, so it dies when the loop
    ends.
    """

    __slots__ = ("__weakref__",)


class Loop(Protocol):
    """``Loop`` identifies the loop of a run, and knows whether it is still running."""

    frame_id: FrameId
    #: True if the loop does not keep the dict that it gets back, so that its end cannot be noticed.
    lets_go: bool

    def is_calling(self) -> bool:
        """Return whether the loop is among our callers, with no call of another pipeline in
        between."""

    def is_executing(self) -> bool:
        """Return whether the loop has not ended."""

    def handed(self, outputs: Outputs) -> None:
        """Note the dict that the loop got back at a step's end."""

    def forget(self) -> None:
        """Forget all references: the run is over."""


class ScopedLoop:
    """A scoped loop runs in a call that unicb makes itself, so that its end is known."""

    def __init__(self, frame_id: FrameId, scope: Scope) -> None:
        self.frame_id = frame_id
        self.lets_go = False
        self._scope = scope

    def is_calling(self) -> bool:
        return innermost() is self._scope

    def is_executing(self) -> bool:
        return self._scope.is_open

    def handed(self, outputs: Outputs) -> None:
        """Do nothing: the scope shows the loop's end."""

    def forget(self) -> None:
        """Do nothing: nothing is kept."""


class WatchedLoop:
    """A watched loop runs in a call that the user makes, whose end unicb has to notice by itself.

    Args:
        frame_id: the id of the loop's frame, in the current thread.
        ended: called when the loop is found to have ended other than by its last step.
    """

    def __init__(self, frame_id: FrameId, ended: Callable[[], None]) -> None:
        pin_callers()
        self.frame_id = frame_id
        self.lets_go = False
        self._ended: Callable[[], None] | None = ended
        self._thread_id = threading.get_ident()
        self._within = innermost()
        self._outputs: ref[Outputs] | None = None

    def is_calling(self) -> bool:
        return innermost() is self._within and calls_us(self.frame_id)

    def is_executing(self) -> bool:
        return runs_in_thread(self.frame_id, self._thread_id)

    def handed(self, outputs: Outputs) -> None:
        self._outputs = ref(outputs, self._let_go)

    def _let_go(self, _: object) -> None:
        if self.is_executing():
            self.lets_go = True
        elif self._ended is not None:
            self._ended()

    def forget(self) -> None:
        """Stop watching."""
        self._outputs = self._ended = None
