"""Look at frames of other threads without garbage collection.

Before Python 3.12, any allocation may start a garbage collection, during which other threads run.
``sys._current_frames`` allocates while it holds the interpreter's lock on threads, so two callers
may wait for each other for ever. And the object for another thread's frame (``f_back``) is filled
after that thread may have run and ended the frame: Python crashes. Later Pythons collect only
between two instructions.
"""

from __future__ import annotations

import gc
import sys
import threading
from contextlib import AbstractContextManager, nullcontext


class _Uncollected:
    """Prevent garbage collection while any thread is in the block."""

    def __init__(self) -> None:
        # A signal handler may run between any two lines below, and look at frames, too.
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
