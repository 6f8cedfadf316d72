"""Tell which loop is calling, and whether it is still running.

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
    """A frame's id tells it from all others that are there at the same time."""

    number: int
    code: CodeType


def id_of(frame: FrameType) -> FrameId:
    return FrameId(id(frame), frame.f_code)


def loop_frame_id(pipeline: Any, frame: FrameType) -> FrameId:
    """Return the id of the innermost frame, from ``frame`` outwards, that runs the pipeline's own
    code.

    It is that of ``frame`` itself, or of the first outside of unicb, where none does, as when a
    loop is a function outside the class.
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
    """Return whether ``frame``, or one that (directly or not) called it, runs the class's own
    code."""
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
    """Return the id of the loop's frame that was given this callback and is calling us, as
    :func:`loop_frame_id` finds it once it calls back; None if there is none."""
    frame = _given(callback, sys._getframe(1))
    return None if frame is None else loop_frame_id(pipeline, frame)


def _given(
    callback: Callable[..., Any], frame: FrameType | None, ours: bool = True
) -> FrameType | None:
    """Return the innermost frame, from ``frame`` outwards, that was given this callback. ``ours``
    says whether the frames are of this thread."""
    while frame is not None:
        if CALLBACK in frame.f_code.co_varnames:
            # Another thread's may be reading its locals just now.
            found = _locals_of(frame, [CALLBACK]) if ours else frame.f_locals
            if found.get(CALLBACK) == callback:
                return frame
        frame = frame.f_back
    return None


def loop_locals(frame_id: FrameId, names: Iterable[str]) -> dict[str, Any]:
    """Return the values of the frame's locals by these names; it must be one of our callers."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and id_of(frame) != frame_id:
        frame = frame.f_back
    return {} if frame is None else _locals_of(frame, names)


def _locals_of(frame: FrameType, names: Iterable[str]) -> dict[str, Any]:
    values = frame.f_locals
    found = {name: values[name] for name in names if name in values}
    # Before Python 3.13 a function's frame makes a copy, and keeps it, with all of its tensors. A
    # module's are no copy but its very names, and a loop may stand in a script itself.
    if type(values) is dict and frame.f_code.co_flags & inspect.CO_OPTIMIZED:
        values.clear()
    return found


def calls_us(frame_id: FrameId) -> bool:
    """Return whether the frame is one of those that (directly or not) called this function."""
    return _on_stack(frame_id, sys._getframe(1))


def runs_in_thread(frame_id: FrameId, thread_id: int) -> bool:
    """Return whether the frame is being executed in the thread."""
    while True:
        with uncollected:
            outermost = _walk(frame_id, sys._current_frames().get(thread_id))
        if not isinstance(outermost, CodeType):
            return outermost
        # A generator that has just been suspended has no callers, and we have seen nothing.


def _on_stack(frame_id: FrameId, frame: FrameType | None) -> bool:
    return _walk(frame_id, frame) is True


def _walk(frame_id: FrameId, frame: FrameType | None) -> bool | CodeType:
    """Return whether the frame is among these; if not, and the outermost one is a generator's, its
    code."""
    code: CodeType | None = None
    while frame is not None:
        code = frame.f_code
        if id(frame) == frame_id.number and code is frame_id.code:
            return True
        frame = frame.f_back
    return code if code is not None and code.co_flags & _GENERATORS else False


class Outputs(dict[str, Tensor]):
    """``Outputs`` go back into the loop: a dict whose end can be noticed.

    Loops keep it in a local from one step end to the next, so it dies when the loop does.
    """

    __slots__ = ("__weakref__",)


class Loop(Protocol):
    """``Loop`` is the loop of a run: which it is, and whether it is still there."""

    frame_id: FrameId
    #: Whether it does not keep what it gets back, so that its end cannot be noticed.
    lets_go: bool

    def is_calling(self) -> bool:
        """Return whether the loop is among our callers, and no call of another pipeline is
        between."""

    def is_executing(self) -> bool:
        """Return whether the loop has not ended."""

    def handed(self, outputs: Outputs) -> None:
        """Note that the loop has got these back at a step's end."""

    def forget(self) -> None:
        """Forget what is kept: the run is over."""


class ScopedLoop:
    """A scoped loop runs in a call that unicb makes itself, which knows when that ends."""

    def __init__(self, frame_id: FrameId, scope: Scope) -> None:
        self.frame_id = frame_id
        self.lets_go = False
        self._scope = scope

    def is_calling(self) -> bool:
        return innermost() is self._scope

    def is_executing(self) -> bool:
        return self._scope.is_open

    def handed(self, outputs: Outputs) -> None:
        """Do nothing: the scope tells of the loop's end."""

    def forget(self) -> None:
        """Do nothing: nothing is kept."""


class WatchedLoop:
    """A watched loop runs in a call that somebody else makes: nobody tells when it ends, so it is
    watched.

    Args:
        frame_id: its frame, in the thread that is running.
        ended: called when the loop is seen to have ended otherwise than by its last step.
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
        """Watch no longer."""
        self._outputs = self._ended = None
