"""Keep the state that callbacks have of a binding, or of a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

T = TypeVar("T")


class States:
    """``States`` keeps values by callback objects, which are kept alive with them."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[object, Any]] = {}

    def of(self, callback: object, make: Callable[[], T]) -> T:
        """Return the value kept for ``callback``; the first time, make it by ``make()``."""
        kept = self._kept.get(id(callback))
        if kept is None:
            if not callable(make):
                raise TypeError(
                    "state(self, make) takes a function that makes what is kept, such as list or "
                    f"dict, not a {type(make).__name__}"
                )
            kept = self._kept[id(callback)] = callback, make()
        return cast(T, kept[1])

    def get(self, callback: object) -> Any:
        """Return the value kept for ``callback``; None if there is none."""
        return self._kept.get(id(callback), (None, None))[1]
