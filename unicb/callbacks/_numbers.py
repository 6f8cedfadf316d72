"""Count runs."""

from __future__ import annotations

import threading
from typing import Any


class Numbers:
    """Return 0, 1, 2 and so on, each once, to any number of threads.

    Unlike ``itertools.count``, this can be pickled in every Python; a copy continues the count.
    """

    def __init__(self, following: int = 0) -> None:
        self._following = following
        self._lock = threading.Lock()

    def __next__(self) -> int:
        with self._lock:
            number = self._following
            self._following += 1
            return number

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._following,)
