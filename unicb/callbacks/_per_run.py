"""What a callback keeps of each run, where it may serve several at a time."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from unicb.step import Step

T = TypeVar("T")


@dataclass
class _Kept(Generic[T]):
    run: weakref.ref[Any]
    thread_id: int
    value: T

    @property
    def is_over(self) -> bool:
        run = self.run()
        return run is None or bool(getattr(run, "over", False))


class PerRun(Generic[T]):
    """A value for each run under way, made when its first step ends."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # the garbage collector may end a run in any thread
        self._kept: list[_Kept[T]] = []

    def of(self, step: Step, make: Callable[[], T]) -> T:
        """The value of a step's run; ``make`` gives it the first time."""
        run = step._run
        with self._lock:
            for kept in self._kept:
                if kept.run() is run:
                    return kept.value
        value = make()
        with self._lock:
            self._kept.append(_Kept(weakref.ref(run), threading.get_ident(), value))
        return value

    def ended(self) -> list[T]:
        """To be called in ``on_run_end``: the values of the runs that have ended, each once.

        ``on_run_end`` does not say which run it is about. It is one of which nothing is left, or
        the youngest of this thread.
        """
        with self._lock:
            over = [kept for kept in self._kept if kept.is_over]
            if not over:
                ours = threading.get_ident()
                over = [kept for kept in self._kept if kept.thread_id == ours][-1:]
            self._kept = [kept for kept in self._kept if not any(kept is x for x in over)]
        return [kept.value for kept in over]
