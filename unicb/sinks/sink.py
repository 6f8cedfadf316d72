"""Say what a sink is, and make one of other things."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Literal, Protocol, TypeAlias, cast

from unicb._described import short
from unicb.sinks.files import FileSink
from unicb.sinks.frame import PreviewFrame

#: What a sink may ask of a run: to finish with the picture so far, or without any.
Wish: TypeAlias = Literal["interrupt", "cancel"]


class Sink(Protocol):
    """A sink takes previews, and shows or keeps them.

    ``close`` is optional in a sink that is handed to :func:`as_sink`; what comes out has it.
    After ``close`` a sink may be called again: that is the next run. One that keeps something of a
    run, and is to serve several at once, has a method ``for_run()`` that returns a sink for one.

    One by which who looks on may end a run has ``asks = True``, and a method ``asked()``: called at
    the end of each step, in the run's thread, it returns ``"interrupt"``, ``"cancel"`` or None. One
    with a method ``ended(outcome, done)`` hears before ``close`` how the run has ended (as in
    ``Run.outcome``) and after how many steps.
    """

    def __call__(self, frame: PreviewFrame, /) -> object:
        """Take the previews of one step, in the order of the steps. Not called by two threads
        at once."""

    def close(self) -> object:
        """Write what is still to be written, and forget the run: it is over, however it ended.
        Called once for each run; it must do no harm where no frame came before it.

        Called once for each run; it must do no harm where no frame came before it."""


class Collector(Protocol):
    """A collector is a list, a ``collections.deque(maxlen=...)``, or anything else to append frames
    to."""

    def append(self, frame: PreviewFrame, /) -> object: ...


SinkLike: TypeAlias = str | os.PathLike[str] | Callable[[PreviewFrame], object] | Collector | Sink


def as_sink(to: SinkLike) -> Sink:
    """Return the sink that ``to`` stands for.

    Args:
        to: one of

            - a path template such as ``"steps/{step:03d}.png"``: see :class:`FileSink`;
            - a :class:`Sink`, which is returned as it is;
            - a function of one :class:`PreviewFrame`;
            - something with ``append``, such as a list: it collects the frames.

    Raises:
        TypeError: it is none of these: a class instead of an object, a list of paths.
        ValueError: the template cannot be used; the message says why.
    """
    if isinstance(to, str | os.PathLike):
        return FileSink(to)
    if isinstance(to, type):
        raise TypeError(
            f"previews go to an object, and {to.__name__} is a class: write {to.__name__}(...)"
        )
    if callable(to):
        return cast(Sink, to) if callable(getattr(to, "close", None)) else _Plain(to)
    append = getattr(to, "append", None)
    if not callable(append) or _holds_paths(to):
        raise TypeError(
            f"Preview takes a path template or a callable, a list to collect in, or a sink; "
            f"not {to!r}"
        )
    return _Plain(append)


def function_of(sink: Sink) -> Callable[[PreviewFrame], object] | None:
    """Return the function that a sink stands for; None where it is an object of its own."""
    return sink._function if isinstance(sink, _Plain) else None


def _holds_paths(collector: Any) -> bool:
    """Return whether a list holds paths: a template in brackets was meant as a path, and would
    silently become a collector."""
    return isinstance(collector, list) and any(
        isinstance(item, str | os.PathLike) for item in collector
    )


class _Plain:
    """``_Plain`` makes a sink of a function: nothing is left to do at the end."""

    def __init__(self, function: Callable[[PreviewFrame], object]) -> None:
        self._function = function

    def __call__(self, frame: PreviewFrame) -> None:
        self._function(frame)

    def close(self) -> None:
        pass

    def __repr__(self) -> str:
        return short(self._function)
