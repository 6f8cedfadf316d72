"""Carry an error of unicb's out of a modular pipeline unlogged. Its blocks catch every
``Exception``, log it with its traceback, once for each block, and raise it again; but a cancelled
run is no error of theirs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from unicb.pipelines.target import Target

T = TypeVar("T")


class ThroughBlocks(BaseException):
    """Carry an error up to unicb's call of a modular pipeline.

    Attributes:
        error: the error that this call raises.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


def raised_in_loop(target: Target, error: Exception) -> BaseException:
    """Return what to raise in a pipeline's loop, so that the pipeline's call raises this error."""
    return error if target.blocks is None else ThroughBlocks(error)


def or_through_blocks(act: Callable[..., T], *args: Any) -> T:
    """Return ``act(*args)``; its errors are raised inside a :class:`ThroughBlocks`."""
    try:
        return act(*args)
    except Exception as error:
        raise ThroughBlocks(error) from None


@contextmanager
def past_blocks() -> Iterator[None]:
    """Open a block that raises a carried error as itself."""
    try:
        yield
    except ThroughBlocks as through:
        raise through.error from through.error.__cause__
