"""Define sinks, and turn functions, lists and path templates into sinks."""

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

    ``close`` is optional in a sink that is passed to :func:`as_sink`, which adds it. A sink may be
    called again after ``close``, for the next run. A sink that keeps data of a run, and is to serve
    several runs at once, needs a method ``for_run()`` that returns a sink for one run.

    A sink through which a viewer may end a run has ``asks = True`` and a method ``asked()``, which
    is called at the end of each step, in the run's thread, and returns ``"interrupt"``,
    ``"cancel"`` or None. If a sink has a method ``ended(outcome, done)``, it is called before
    ``close`` with how the run ended (as in ``Run.outcome``) and the number of steps that had ended.
    """

    def __call__(self, frame: PreviewFrame, /) -> object:
        """Take the previews of one step. Called in the order of the steps, never by two threads at
        once."""

    def close(self) -> object:
        """Finish writing, and forget the run, which is over, however it ended.

        Called once for each run, also if no frame came before."""


class Collector(Protocol):
    """A collector is a list, a ``collections.deque(maxlen=...)``, or another object with
    ``append``."""

    def append(self, frame: PreviewFrame, /) -> object: ...


SinkLike: TypeAlias = str | os.PathLike[str] | Callable[[PreviewFrame], object] | Collector | Sink


def as_sink(to: SinkLike) -> Sink:
    """Turn ``to`` into a sink.

    Args:
        to: one of

            - a path template such as ``"steps/{step:03d}.png"``: see :class:`FileSink`;
            - a :class:`Sink`, which is returned unchanged;
            - a function of one :class:`PreviewFrame`;
            - something with ``append``, such as a list: it collects the frames.

    Raises:
        TypeError: ``to`` is none of these, for example a class instead of an object, or a list of
            paths.
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
    """Return the function that a sink wraps; None if it wraps none."""
    return sink._function if isinstance(sink, _Plain) else None


def _holds_paths(collector: Any) -> bool:
    """Return whether a list holds paths: a template in brackets was meant as a path, and must not
    become a collector."""
    return isinstance(collector, list) and any(
        isinstance(item, str | os.PathLike) for item in collector
    )


class _Plain:
    """``_Plain`` turns a function into a sink, with nothing to do at the end."""

    def __init__(self, function: Callable[[PreviewFrame], object]) -> None:
        self._function = function

    def __call__(self, frame: PreviewFrame) -> None:
        self._function(frame)

    def close(self) -> None:
        pass

    def __repr__(self) -> str:
        return short(self._function)
