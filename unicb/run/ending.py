"""End a run exactly once, whatever errors occur: undo its changes, and notify its callbacks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Literal, TypeAlias

#: How a run has ended.
Outcome: TypeAlias = Literal["finished", "interrupted", "cancelled", "failed"]

_UNDO_SECONDS = 10.0


class Ending:
    """An ending does what is necessary at the end of a run. If one part raises, the others are
    still done.

    Attributes:
        changes: functions that undo the run's changes.
        callbacks: functions that notify the callbacks of the end; they may be called earlier.
        begun: True once the end has begun.
        outcome, error: how the run has ended, and the error that ended it; None before that.
    """

    def __init__(self) -> None:
        self.changes, self.callbacks = ExitStack(), ExitStack()
        self.begun = False
        self.outcome: Outcome | None = None
        self.error: BaseException | None = None
        self._lock = threading.Lock()
        self._finisher = 0
        self._done = threading.Event()

    def begin(self) -> bool:
        """Begin the end. Returns False if it was begun before; if that was in another thread, the
        end is over when this returns."""
        with self._lock:
            begun, self.begun = self.begun, True
            if not begun:
                self._finisher = threading.get_ident()
        # Another thread may be ending the run: wait for it, so that nothing is left on the pipeline
        # when its call returns.
        if begun and self._finisher != threading.get_ident():
            self._done.wait(_UNDO_SECONDS)
        return not begun

    def run(self, *then: Callable[[], None]) -> None:
        """Undo the changes, notify the callbacks, and call each of ``then``."""
        try:
            with self.changes:
                self.callbacks.close()
        finally:
            self.error = None  # its traceback keeps the caller's frames alive
            self._done.set()
            with ExitStack() as rest:
                for each in reversed(then):
                    rest.callback(each)
