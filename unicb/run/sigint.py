"""Turn Ctrl-C into an interrupt of one run."""

from __future__ import annotations

import signal
import threading
import weakref
from collections.abc import Callable
from types import FrameType
from typing import Any, Literal, TypeAlias, get_args

from unicb.checks import one_of
from unicb.errors import UnicbError

OnSigint: TypeAlias = Literal["interrupt"]


def check_sigint(on_sigint: str) -> None:
    """Raise ValueError for another word than "interrupt"; UnicbError outside the main thread."""
    one_of("on_sigint", on_sigint, get_args(OnSigint), "None")
    if threading.current_thread() is not threading.main_thread():
        raise UnicbError(
            "on_sigint needs the main thread, which alone Ctrl-C reaches; in "
            f"{threading.current_thread().name!r} leave it out, and call interrupt() on the binding"
        )


class SigintHandler:
    """Interrupt a run at the first Ctrl-C, and be gone at the second."""

    def __init__(self, interrupt: Callable[[FrameType | None], bool]) -> None:
        """Take ``interrupt``: a bound method, not kept alive. It is called with the frame that was
        executed, and returns whether there is a run to interrupt."""
        self._interrupt = weakref.WeakMethod(interrupt)
        self._before: Any = None

    def install(self) -> None:
        """Take the place of the handler that is there.

        Raises:
            UnicbError: this is not the main thread.
        """
        check_sigint("interrupt")
        self.remove()
        self._before = signal.signal(signal.SIGINT, self._handle)

    def remove(self) -> None:
        """Put back the handler that was there. Idempotent; nothing to do in other threads."""
        if threading.current_thread() is not threading.main_thread():
            return
        top = signal.getsignal(signal.SIGINT)
        if top == self._handle:
            # None stands for a handler that was not installed from Python, and cannot be put back.
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
        if interrupt is not None and interrupt(frame):
            return
        if callable(before):
            before(number, frame)
