"""End a run: undo what is to be undone, and tell who is to hear of it, once and whatever
happens."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Literal, TypeAlias

#: How a run has ended.
Outcome: TypeAlias = Literal["finished", "interrupted", "cancelled", "failed"]

_UNDO_SECONDS = 10.0


class Ending:
    """An ending does what is to be done at the end of a run. Whatever one part raises, the others
    are done too.

    Attributes:
        changes: undoes what the run has changed.
        callbacks: tells those that have begun that the run is over; maybe before the rest.
        begun: whether the end has begun.
        outcome, error: how it has ended, and what ended it; None before that.
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
        """Begin the end. Returns False if it has begun already, in this thread or another; then it
        has ended in another one."""
        with self._lock:
            begun, self.begun = self.begun, True
            if not begun:
                self._finisher = threading.get_ident()
        # Who looks after a run from another thread may be about it: nothing is left on the
        # pipeline when its call returns.
        if begun and self._finisher != threading.get_ident():
            self._done.wait(_UNDO_SECONDS)
        return not begun

    def run(self, *then: Callable[[], None]) -> None:
        """Undo, tell, and call each of ``then``."""
        try:
            with self.changes:
                self.callbacks.close()
        finally:
            self.error = None  # its traceback has the frames of whoever made the call
            self._done.set()
            with ExitStack() as rest:
                for each in reversed(then):
                    rest.callback(each)
