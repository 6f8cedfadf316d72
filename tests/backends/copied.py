"""A hook of unicb on a module, for tests of what becomes of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from here import backend


def hooked(module: Any) -> tuple[list[Any], Callable[[], None]]:
    """Grows with every call of the module; and what takes the hook away."""
    calls: list[Any] = []
    refuses_copies = threading.Lock()

    def around(call: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        with refuses_copies:
            calls.append(module)
        return call(*args, **kwargs)

    return calls, backend.hook(module, around)
