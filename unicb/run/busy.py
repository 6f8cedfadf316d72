"""Let each pipeline object and each scheduler object serve only one run at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from unicb.errors import PipelineBusyError

_lock = threading.RLock()
#: By the id of the object in use; the lease keeps the object alive, so the id stays its own.
_leases: dict[int, Lease] = {}


class Holder(Protocol):
    """A holder uses a pipeline."""

    def is_executing(self) -> bool:
        """Return whether the holder still uses the pipeline."""

    def is_leaving(self) -> bool:
        """Return whether the holder is about to end, or ends as soon as it is cancelled, because
        nobody wants it any more."""

    def cancel(self) -> Any:
        """Make the holder end."""

    def join(self) -> None:
        """Wait until the holder has ended."""


class Lease:
    """A lease keeps a pipeline and its schedulers for one run, until it is released."""

    def __init__(self, pipeline: Any, holder: Holder) -> None:
        self.pipeline, self.holder = pipeline, holder
        self._kept = [pipeline, *_schedulers(pipeline)]
        self._before: list[Lease] = []

    def take(self) -> None:
        """Take the pipeline and its schedulers if they are free, or if their holders are leaving;
        :meth:`wait` then waits for these.

        Raises:
            PipelineBusyError: another run uses the pipeline or one of its schedulers.
        """
        with _lock:
            others = [(thing, other) for thing in self._kept if (other := _in_use(thing))]
            for thing, other in others:
                if not other.holder.is_leaving():
                    raise PipelineBusyError(_message(self.pipeline, thing, other.pipeline))
            for _, other in others:
                other.holder.cancel()
                self._before.append(other)
            for thing in self._kept:
                _leases[id(thing)] = self

    def wait(self) -> None:
        """Wait until the holders that were leaving have ended."""
        while self._before:
            self._before[-1].holder.join()
            self._before.pop()  # drop it: it keeps a run's callbacks and previews alive

    def user(self) -> Lease | None:
        """Return the lease whose holder uses the pipeline: this one, or, if this one was given up
        while it waited, the one that it waited for."""
        if self.holder.is_executing():
            return self
        return next(filter(None, (other.user() for other in self._before)), None)

    def take_free(self) -> None:
        """Take only those that are free, for a run that has begun already and is not refused."""
        with _lock:
            for thing in self._kept:
                if _in_use(thing) is None:
                    _leases[id(thing)] = self

    def release(self) -> None:
        """Release the pipeline and its schedulers. Idempotent."""
        with _lock:
            for thing in self._kept:
                if _leases.get(id(thing)) is self:
                    del _leases[id(thing)]
            if (other := self.user()) is not None and other is not self:
                other.take_free()


def take_free(pipeline: Any, holder: Holder) -> Lease:
    """Return a lease of what nobody uses of a pipeline and its schedulers: for a run that has begun
    already, and is not refused."""
    lease = Lease(pipeline, holder)
    lease.take_free()
    return lease


class User:
    """A user holds a pipeline until ``is_executing`` returns False, and cannot be cancelled.

    Args:
        is_executing: returns whether the pipeline is still in use.
    """

    def __init__(self, is_executing: Callable[[], bool] = lambda: True) -> None:
        self._is_executing = is_executing

    def is_executing(self) -> bool:
        return self._is_executing()

    def is_leaving(self) -> bool:
        return False

    def cancel(self) -> None:
        raise NotImplementedError("nobody leaves")

    def join(self) -> None:
        raise NotImplementedError("nobody leaves")


def _in_use(thing: Any) -> Lease | None:
    lease = _leases.get(id(thing))
    return None if lease is None else lease.user()


def _schedulers(pipeline: Any) -> Iterator[Any]:
    """Yield the schedulers in the pipeline's attributes."""
    for name, value in vars(pipeline).items() if hasattr(pipeline, "__dict__") else ():
        if name.endswith("scheduler") and callable(getattr(value, "step", None)):
            yield value


def _message(pipeline: Any, thing: Any, other: Any) -> str:
    kind = type(pipeline).__name__
    instead = (
        "wait for that run to end, or call a pipeline with the same models and a scheduler of its "
        "own: unicb.sibling(pipe)"
    )
    if thing is pipeline:
        return f"this {kind} is in use by a run that has not ended; {instead}"
    return (
        f"the {type(thing).__name__} of this {kind} is also that of a {type(other).__name__} with "
        f"a run that has not ended, and counts its steps; {instead}"
    )
