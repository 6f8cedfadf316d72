"""Turn Ctrl-C into an interrupt of one run."""

from __future__ import annotations

import signal
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, ClassVar, Literal, TypeAlias, get_args

from unicb import jupyter
from unicb.checks import one_of
from unicb.errors import UnicbError

OnSigint: TypeAlias = Literal["interrupt"]

#: Whether the first Ctrl-C interrupts a run. "no": it does not; "asked": ``bind`` was given
#: ``on_sigint``, which needs the main thread; "offered": a callback offers it, if it is possible,
#: and once per notebook cell.
Sigint: TypeAlias = Literal["no", "asked", "offered"]


def check_sigint(on_sigint: str) -> None:
    """Raise ValueError if ``on_sigint`` is not "interrupt"; raise UnicbError outside the main
    thread."""
    one_of("on_sigint", on_sigint, get_args(OnSigint), "None")
    if threading.current_thread() is not threading.main_thread():
        raise UnicbError(
            "on_sigint needs the main thread, which alone Ctrl-C reaches; in "
            f"{threading.current_thread().name!r} leave it out, and call interrupt() on the binding"
        )


class SigintHandler:
    """Interrupt a run at the first Ctrl-C; the second has its usual effect.

    Args:
        interrupt: a bound method, held weakly. It is called with the frame that was executing, and
            returns whether there is a run to interrupt.
        once: True: interrupt only once per notebook cell; a second Ctrl-C, even in a further run of
            the cell, has its usual effect.
    """

    #: The cell in which a handler with ``once`` has interrupted a run.
    _used_in: ClassVar[int | None] = None

    def __init__(
        self, interrupt: Callable[[FrameType | None], bool], *, once: bool = False
    ) -> None:
        self._interrupt = weakref.WeakMethod(interrupt)
        self._once = once
        self._before: Any = None

    def install(self) -> None:
        """Replace the present handler.

        Raises:
            UnicbError: this is not the main thread.
        """
        check_sigint("interrupt")
        self.remove()
        self._before = signal.signal(signal.SIGINT, self._handle)

    def remove(self) -> None:
        """Put the former handler back. Idempotent; does nothing outside the main thread."""
        if threading.current_thread() is not threading.main_thread():
            return
        top = signal.getsignal(signal.SIGINT)
        if top == self._handle:
            # None means a handler that was not installed from Python, and cannot be put back.
            before = signal.default_int_handler if self._before is None else self._before
            signal.signal(signal.SIGINT, before)
        while isinstance(above := getattr(top, "__self__", None), SigintHandler):
            top = above._before
            if top == self._handle:  # another run's is in front of ours, and will put ours back
                above._before = self._before
                return

    def _handle(self, number: int, frame: FrameType | None) -> None:
        before, interrupt = self._before, self._interrupt()
        self.remove()
        cell = jupyter.cell() if self._once else None
        used = cell is not None and SigintHandler._used_in == cell
        if interrupt is not None and not used and interrupt(frame):
            if self._once:
                SigintHandler._used_in = cell
            return
        if callable(before):
            before(number, frame)


def handler_for(
    sigint: Sigint, interrupt: Callable[[FrameType | None], bool]
) -> SigintHandler | None:
    """Return the handler that interrupts a run at Ctrl-C; None if that is not wanted, or only
    offered and this is not the main thread."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    if sigint == "no" or (sigint == "offered" and not in_main_thread):
        return None
    return SigintHandler(interrupt, once=sigint == "offered")


@contextmanager
def interrupting(sigint: Sigint, interrupt: Callable[[FrameType | None], bool]) -> Iterator[None]:
    """Return a block in which Ctrl-C interrupts a run in another thread; ``interrupt`` is as for
    :class:`SigintHandler`."""
    handler = handler_for(sigint, interrupt) if sigint == "offered" else None
    if handler is None:
        yield
        return
    handler.install()
    try:
        yield
    finally:
        handler.remove()
