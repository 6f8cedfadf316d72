"""What guidance asks of the run that it belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol


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

    def finish(self) -> None:
        """Put back what it has changed: it is over."""

    def loop_locals(self, names: Sequence[str]) -> dict[str, Any]:
        """Those of the loop's locals that there are."""

    def on_finish(self, undo: Any) -> None:
        """Have ``undo`` called when the run is over, however it ends."""
