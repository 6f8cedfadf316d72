"""Measure how long a pipeline takes from its last step to its return, which is mostly decoding."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from typing import Any

from unicb.run.handle import Handle


class Decoding:
    """Measure how long one call takes after its last step, and report that to the handle.

    Args:
        handle: the binding's handle.
        call: the number of the call.
    """

    def __init__(self, handle: Handle, call: int) -> None:
        self._handle, self._call = handle, call
        self._began: float | None = None
        self._watched: weakref.ref[Any] | None = None

    def start(self) -> None:
        """Start the clock: the last step has ended."""
        self._began = time.monotonic()

    def watch(self, outputs: Any, returned: Callable[[], None]) -> None:
        """Stop the clock and call ``returned`` when ``outputs`` is collected: nothing else shows
        that the call returns, and the frame that holds ``outputs`` ends with the call."""
        handle, began, call = self._handle, self._began, self._call
        assert began is not None

        def died(_: object) -> None:
            handle.decoded_since(began, call)
            returned()

        self._watched = weakref.ref(outputs, died)

    def stop(self, failed: bool) -> None:
        """Stop the clock: the call has returned, or has failed."""
        if self._began is not None and not failed:
            self._handle.decoded_since(self._began, self._call)
        self._began = self._watched = None
