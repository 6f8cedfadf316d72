"""How an error of ours gets out of a modular pipeline: its blocks catch every ``Exception``, log it
with its traceback, once for each block that it passes, and raise it again. A cancelled run is none
of their errors."""

from __future__ import annotations


class ThroughBlocks(BaseException):
    """Carries an error to the call that unicb has made of a modular pipeline.

    Attributes:
        error: what that call raises.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


def carried(error: BaseException) -> BaseException:
    """The error itself, whatever has carried it."""
    return error.error if isinstance(error, ThroughBlocks) else error
