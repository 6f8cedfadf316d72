"""Keep a whole run in a bounded number of pictures."""

from __future__ import annotations

from typing import NamedTuple

from PIL import Image


class Shown(NamedTuple):
    """``Shown`` holds the picture that a step showed."""

    step: int
    picture: Image.Image


class Thinned:
    """Keep at most ``limit`` pictures, evenly spaced, with the first and the last of the run.

    Whenever the limit is reached, every second picture is dropped, and from then on only every
    second one is taken. So the kept pictures cover the whole run so far, however long it is.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._start()

    def _start(self) -> None:
        self._kept: list[Shown] = []
        self._newest: Shown | None = None
        self._count = 0  # number of pictures before the newest
        self._stride = 1

    def empty(self) -> Thinned:
        """Return an empty object with the same limit."""
        return Thinned(self._limit)

    def add(self, step: int, picture: Image.Image) -> None:
        if self._newest is not None:
            self._keep(self._newest)
        self._newest = Shown(step, picture)

    def take(self) -> list[Shown]:
        """Return all kept pictures, in order, and start again."""
        newest = [] if self._newest is None else [self._newest]
        taken = self._kept + newest
        self._start()
        return taken

    def _keep(self, shown: Shown) -> None:
        full = len(self._kept) == self._limit - 1  # one place is for the newest
        if full and self._count % self._stride == 0:
            self._kept = self._kept[::2]
            self._stride *= 2
        if self._count % self._stride == 0:
            self._kept.append(shown)
        self._count += 1
