"""Have one pipeline object, and one scheduler object, serve one run at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from unicb.errors import PipelineBusyError

_lock = threading.RLock()
#: By the id of what is in use, which the lease keeps from being given out again.
_leases: dict[int, Lease] = {}


class Holder(Protocol):
    """A holder uses a pipeline."""

    def is_executing(self) -> bool:
        """Return whether it still uses the pipeline."""

    def is_leaving(self) -> bool:
        """Return whether it is about to end, or will as soon as it is cancelled, since nobody wants
        it."""

    def cancel(self) -> Any:
        """Have it end."""

    def join(self) -> None:
        """Wait until it has ended."""


class Lease:
    """A lease keeps a pipeline and its schedulers for one run, until it is released."""

    def __init__(self, pipeline: Any, holder: Holder) -> None:
        self.pipeline, self.holder = pipeline, holder
        self._kept = [pipeline, *_schedulers(pipeline)]
        self._before: list[Lease] = []

    def take(self) -> None:
        """Take what is free, or is used by somebody who is leaving; :meth:`wait` waits for these.

        Raises:
            PipelineBusyError: another run uses one of them.
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
        """Wait until those who were leaving have left."""
        while self._before:
            self._before[-1].holder.join()
            self._before.pop()  # it has a run's callbacks and previews

    def user(self) -> Lease | None:
        """Return the lease whose holder uses the pipeline: this one, or one that this one would
        have waited for, where this was given up before."""
        if self.holder.is_executing():
            return self
        return next(filter(None, (other.user() for other in self._before)), None)

    def take_free(self) -> None:
        """Take those that nobody uses: of a run that has begun already, and is not refused."""
        with _lock:
            for thing in self._kept:
                if _in_use(thing) is None:
                    _leases[id(thing)] = self

    def release(self) -> None:
        """Let others use them. Idempotent."""
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
    """A user has a pipeline until it says otherwise, and is not asked to leave.

    Args:
        is_executing: whether it still does.
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
    """Yield the pipeline's schedulers, as far as it has them in attributes, like diffusers' do."""
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
