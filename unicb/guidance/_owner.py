"""What guidance asks of the run that it belongs to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from unicb.backend import Around
from unicb.ops import Tensor


class Owner(Protocol):
    """A run, as those see it that change its models' calls."""

    @property
    def index(self) -> int:
        """Of the last step that has ended; -1 before the first has."""

    def owns_current_call(self) -> bool:
        """Whether who is calling is the run's own loop: not another pipeline, and not one of the
        run's callbacks."""

    def is_executing(self) -> bool:
        """Whether its loop has not ended."""

    def hook(self, model: Any, around: Around, *, outermost: bool = False) -> Callable[[], None]:
        """Have ``around`` answer a model's calls, until the returned function is called."""

    def watch_steps(self, watch: Callable[[Mapping[str, Tensor]], None]) -> None:
        """Have ``watch`` called at the end of each step, with what the loop has handed over."""

    def finish(self) -> None:
        """Put back what it has changed: it is over."""

    def loop_locals(self, names: Sequence[str]) -> dict[str, Any]:
        """Those of the loop's locals that there are."""

    def on_finish(self, undo: Any) -> None:
        """Have ``undo`` called when the run is over, however it ends."""
