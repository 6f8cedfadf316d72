"""One call of a made-up denoiser, in a run that every call belongs to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from unicb._states import States
from unicb.run.record import Record
from unicb_numpy import backend
from unicb_numpy.ops import StrictTensor


class Denoiser:
    """Answers as it was made to."""

    def __init__(self) -> None:
        self.answers: list[Any] = []

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.answers.pop(0)


class Running:
    """A run whose loop has these locals.

    Attributes:
        made: what the run has done to guidance, and removes in the end.
    """

    ops = backend.ops
    #: Of no modular pipeline.
    target = SimpleNamespace(block_step=None)

    def __init__(self, pipeline: Any = None, **values: Any) -> None:
        self.pipeline, self.values, self.index = pipeline, values, -1
        self.made: Any = None
        self._states = States()
        self.record = Record("a pipeline", 0.0, dict)

    def state(self, callback: Any, make: Callable[[], Any]) -> Any:
        return self._states.of(callback, make)

    def on_finish(self, undo: Callable[[], None]) -> None: ...

    def owns_current_call(self) -> bool:
        return True

    def hook(self, model: Any, around: Any, *, outermost: bool = False) -> Callable[[], None]:
        return backend.hook(model, around)

    def is_executing(self) -> bool:
        return True

    def finish(self) -> None:
        self.made.remove()

    def loop_locals(self, names: Sequence[str]) -> dict[str, Any]:
        return {name: self.values[name] for name in names if name in self.values}


def rows(*values: float) -> StrictTensor:
    """A row of three equal numbers for each."""
    return StrictTensor(np.array(values)[:, None] * np.ones(3))


def first(tensor: Any) -> list[float]:
    """The first number of each row."""
    return [float(row.flat[0]) for row in tensor.data]
