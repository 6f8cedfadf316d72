"""Hooks on a module's call, as an attribute of the instance that comes before the class's method.

JAX has no registry of hooks. ``forward`` is ordinary Python that calls a compiled function: what is
inside that function runs once, when it is traced, and is no place for a hook.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from unicb.backend import Around
from unicb.plain_copies import make_plain_copies

_lock = threading.RLock()


class Hooks:
    """Stands before a module's ``forward`` while there are hooks on it; they go in any order."""

    def __init__(self, module: Any) -> None:
        self.forward = module.forward
        self.arounds: list[Around] = []
        self.end_plain_copies = make_plain_copies(module, _lock, lambda found: found.pop("forward"))
        module.forward = self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        call = self.forward
        for around in self.arounds:
            call = _hooked(call, around)
        return call(*args, **kwargs)


def _hooked(call: Callable[..., Any], around: Around) -> Callable[..., Any]:
    return lambda *args, **kwargs: around(call, args, kwargs)


def hook(module: Any, around: Around) -> Callable[[], None]:
    """See :meth:`unicb.Backend.hook`."""
    with _lock:
        hooks = module.forward
        if not isinstance(hooks, Hooks):
            hooks = Hooks(module)
        hooks.arounds.append(around)

    def remove() -> None:
        with _lock:
            hooks.arounds.remove(around)
            if not hooks.arounds:
                del module.forward
                hooks.end_plain_copies()

    return remove
