"""Look at frames of other threads while nothing is collected.

Before Python 3.12, whatever is allocated may begin a garbage collection, and with it other
threads' turn. ``sys._current_frames`` allocates while it holds the interpreter's lock on threads,
so that two callers wait for each other for ever; and an object for a frame of another thread
(``f_back``) is filled after that thread had its turn, in which the frame may have ended: Python
crashes. Later Pythons collect between two instructions only.
"""

from __future__ import annotations

import gc
import sys
import threading
from contextlib import AbstractContextManager, nullcontext


class _Uncollected:
    """Collect no garbage while any thread is within."""

    def __init__(self) -> None:
        # A signal's handler may come in between any two lines below, and look at frames, too.
        self._lock = threading.RLock()
        self._within = 0
        self._was_enabled = False

    def __enter__(self) -> None:
        with self._lock:
            self._within += 1
            if self._within == 1:
                self._was_enabled = gc.isenabled()
                gc.disable()

    def __exit__(self, *_: object) -> None:
        with self._lock:
            if self._within == 1 and self._was_enabled:
                gc.enable()
            self._within -= 1


uncollected: AbstractContextManager[None] = (
    _Uncollected() if sys.version_info < (3, 12) else nullcontext()
)
