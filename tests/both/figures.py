"""How far apart two runs are, and the table of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from recording import Array, Record


@dataclass(frozen=True)
class Distance:
    """Absolute difference of two arrays: the largest, and the mean."""

    largest: float
    mean: float

    @classmethod
    def between(cls, a: Array, b: Array) -> Distance:
        assert a.shape == b.shape
        difference = np.abs(a.astype(np.float64) - b.astype(np.float64))
        return cls(float(difference.max()), float(difference.mean()))


def pictures_apart(torch: Record, mindspore: Record) -> Distance:
    """In levels of 255, over all pixels and colours of all pictures."""
    return Distance.between(torch.pictures * 255.0, mindspore.pictures * 255.0)


def previews_apart(torch: Record, mindspore: Record) -> Distance:
    """In levels of 255, over all steps."""
    return Distance.between(np.stack(torch.previews), np.stack(mindspore.previews))


def latents_apart(torch: Record, mindspore: Record) -> Distance:
    """Over all steps."""
    return Distance.between(np.stack(torch.latents), np.stack(mindspore.latents))


#: Name of the property of a test's report that has a figure.
FIGURE = "figure"


@dataclass(frozen=True)
class Noted:
    """Where a test notes what it measures: with its report, which comes from any process."""

    record_property: Callable[[str, object], None]

    def add(self, scheduler: str, what: str, distance: Distance) -> None:
        self.record_property(FIGURE, (scheduler, what, distance.largest, distance.mean))


@dataclass
class Figures:
    """What was measured, by scheduler and by what was compared."""

    rows: dict[str, dict[str, Distance]] = field(default_factory=dict)

    def add(self, scheduler: str, what: str, distance: Distance) -> None:
        self.rows.setdefault(scheduler, {})[what] = distance

    def table(self) -> Iterator[str]:
        """Lines of text: a scheduler a line, largest and mean difference of each thing."""
        columns = list(dict.fromkeys(what for row in self.rows.values() for what in row))
        yield " " * 20 + "".join(f"{what:>20}" for what in columns)
        yield " " * 20 + f"{'max':>10}{'mean':>10}" * len(columns)
        for scheduler, row in self.rows.items():
            name = scheduler.removesuffix("Scheduler")
            yield f"{name:20}" + "".join(_cell(row.get(what)) for what in columns)


def _cell(distance: Distance | None) -> str:
    return " " * 20 if distance is None else f"{distance.largest:10.2g}{distance.mean:10.2g}"
