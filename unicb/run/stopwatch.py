"""How long a pipeline takes from its last step to its return."""

from __future__ import annotations

import time
import weakref
from typing import Any


class Stopwatch:
    """Measures from the end of a run's denoising until its loop's frame is gone: decoding, mostly.

    Nobody tells when a pipeline returns; but what its last step end got from unicb dies with the
    frame that has it.

    Attributes:
        seconds: of the last call that was measured; None if none was.
    """

    def __init__(self) -> None:
        self.seconds: float | None = None
        self._started = 0.0
        self._watched: weakref.ref[Any] | None = None

    def start(self, outputs: Any) -> None:
        """The last step has ended; ``outputs`` is what the loop keeps from now on."""
        self._started = time.monotonic()
        self._watched = weakref.ref(outputs, self._stop)

    def drop(self) -> None:
        """A new call begins: what is still being measured is no decoding, but a kept traceback."""
        self._watched = None

    def _stop(self, _: object) -> None:
        self.seconds = time.monotonic() - self._started
