"""The calls of a binding that are still alive, whoever makes them."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

if TYPE_CHECKING:
    from unicb.run.call import Call


class Calls:
    """Calls are kept weakly: one lives as long as the pipeline has it as its callback.

    Args:
        lock: the handle's lock, which a thread may take again while it has it: a call that dies
            asks the handle for its calls, wherever the thread is.

    Attributes:
        count: number of calls added so far, which is the number of the latest call.
    """

    def __init__(self, lock: AbstractContextManager[Any]) -> None:
        self.count = 0
        self._calls: WeakSet[Call] = WeakSet()
        self._lock = lock

    def add(self, call: Call) -> int:
        """Add a call that is handed to the pipeline as its callback, and return its number."""
        with self._lock:
            self._calls.add(call)
            self.count += 1
            return self.count

    def live(self) -> list[Call]:
        """Return the calls that are still alive."""
        with self._lock:
            return list(self._calls)

    def are_awaited(self) -> bool:
        """Return whether one of the calls has not begun a run yet."""
        return any(call.is_awaited for call in self.live())

    def cancel_at_once(self) -> None:
        """Cancel each call inside the denoiser, if the call makes the run that is under way."""
        for call in self.live():
            call.cancel_at_once()
