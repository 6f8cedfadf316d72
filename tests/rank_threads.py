"""Ranks that are threads of this process: what several processes decide, without any."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from unicb.backend import Ranks
from unicb.errors import RankError
from unicb_numpy.backend import NumpyBackend

#: Seconds after which a rank gives up; none should take so long.
WAIT = 20.0


class _Round:
    def __init__(self, size: int) -> None:
        self.words: list[Any] = [None] * size
        self.full = threading.Event()


class ThreadGroup:
    """So many ranks, the first of which has the number ``first``.

    Attributes:
        members: what each rank hands to ``bind`` as its group.
        lost: whether what is said does not arrive any more.
        rounds: how many each rank has voted in.
    """

    def __init__(self, size: int, first: int = 0) -> None:
        self.size, self.first = size, first
        self.lock = threading.Lock()
        self.open: list[_Round] = []
        self.rounds = [0] * size
        self.lost = False
        numbers = range(first, first + size)
        self.members = [Ranks(numbers, first + own, Member(self, own)) for own in range(size)]

    def agree(self, own: int, word: Any) -> _Round:
        with self.lock:
            number = self.rounds[own]
            self.rounds[own] += 1
            while len(self.open) <= number:
                self.open.append(_Round(self.size))
            found = self.open[number]
            found.words[own] = word
            if all(each is not None for each in found.words):
                found.full.set()
            return found


class Member:
    """One rank's end of it."""

    def __init__(self, group: ThreadGroup, own: int) -> None:
        self._group, self._own = group, own

    def agree(self, word: npt.NDArray[np.uint8], step: int) -> Callable[[float], Sequence[Any]]:
        if self._group.lost:
            raise RankError("the process group was destroyed")
        found = self._group.agree(self._own, word)

        def heard(seconds: float) -> Sequence[Any]:
            if not found.full.wait(seconds):
                raise RankError(f"nobody answers at the end of step {step}")
            return found.words

        return heard


@pytest.fixture
def threads_as_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the numpy backend take a :class:`ThreadGroup`'s member as a group."""

    def ranks(self: NumpyBackend, group: Any, models: Any, timeout: float) -> Ranks | None:
        return group if isinstance(group, Ranks) else None

    def agree(self: NumpyBackend, word: Any, step: int, group: Any) -> Any:
        return group.agree(word, step)

    monkeypatch.setattr(NumpyBackend, "ranks", ranks)
    monkeypatch.setattr(NumpyBackend, "agree", agree)


def on_each(group: ThreadGroup, work: Callable[[int, Any], Any]) -> list[Any]:
    """What ``work(rank, group)`` returns on each rank, or the error that it raises."""
    found: list[Any] = [None] * group.size

    def begin(own: int) -> None:
        try:
            found[own] = work(own, group.members[own])
        except BaseException as error:
            found[own] = error

    threads = [
        threading.Thread(target=begin, args=(own,), name=f"rank {own}") for own in range(group.size)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert not any(thread.is_alive() for thread in threads), "a rank hangs"
    return found
