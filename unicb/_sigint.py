"""Ctrl-C as an interrupt of one run."""

from __future__ import annotations

import signal
import threading
import weakref
from types import FrameType
from typing import Any, Literal, Protocol, TypeAlias

from unicb._frames import runs_code_of
from unicb.errors import UnicbError

OnSigint: TypeAlias = Literal["interrupt"]


class Interruptible(Protocol):
    """What a :class:`SigintHandler` interrupts."""

    def interrupt(self) -> bool: ...


def check_sigint(on_sigint: str) -> None:
    """Raise ValueError for another word than "interrupt"; UnicbError outside the main thread."""
    if on_sigint != "interrupt":
        raise ValueError(f"on_sigint must be 'interrupt' or None, not {on_sigint!r}")
    if threading.current_thread() is not threading.main_thread():
        raise UnicbError(
            "on_sigint needs the main thread, which alone Ctrl-C reaches; in "
            f"{threading.current_thread().name!r} leave it out, and call interrupt() on the binding"
        )


class SigintHandler:
    """Interrupts a run at the first Ctrl-C, and is gone at the second."""

    def __init__(self, binding: Interruptible, pipeline: Any) -> None:
        # The handler may be there for longer than its binding, if a call fails early.
        self._binding = weakref.ref(binding)
        self._pipeline_class = type(pipeline)
        self._before: Any = None
        self._installed = False

    def install(self) -> None:
        """Take the place of the handler that is there.

        Raises:
            UnicbError: this is not the main thread.
        """
        check_sigint("interrupt")
        if not self._installed:
            self._before = signal.signal(signal.SIGINT, self._handle)
            self._installed = True

    def remove(self) -> None:
        """Put back the handler that was there. Idempotent; nothing to do in other threads."""
        if not self._installed or threading.current_thread() is not threading.main_thread():
            return
        self._installed = False
        if signal.getsignal(signal.SIGINT) == self._handle:
            # None stands for a handler that was not installed from Python, and cannot be put back.
            before = signal.default_int_handler if self._before is None else self._before
            signal.signal(signal.SIGINT, before)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        before, binding = self._before, self._binding()
        self.remove()
        # Where the pipeline's call has failed before its first step, nobody has put it back.
        if (
            binding is not None
            and runs_code_of(self._pipeline_class, frame)
            and binding.interrupt()
        ):
            return
        if callable(before):
            before(number, frame)
