"""How an error of ours gets out of a modular pipeline: its blocks catch every ``Exception``, log it
with its traceback, once for each block that it passes, and raise it again. A cancelled run is none
of their errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class ThroughBlocks(BaseException):
    """Carries an error to the call that unicb has made of a modular pipeline.

    Attributes:
        error: what that call raises.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


@contextmanager
def past_blocks() -> Iterator[None]:
    """A block that raises the error itself, whatever has carried it."""
    try:
        yield
    except ThroughBlocks as through:
        raise through.error from through.error.__cause__
