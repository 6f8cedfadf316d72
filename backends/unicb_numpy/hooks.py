"""Hooks on a module's call. Frameworks have registries for this; numpy has none."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from unicb.backend import Around
from unicb.plain_copies import make_plain_copies

_lock = threading.RLock()


class Hooks:
    """Stands before a module's ``forward`` while there are hooks on it."""

    def __init__(self, module: Any) -> None:
        self.forward = module.forward
        self.arounds: list[Around] = []
        self.end_plain_copies = make_plain_copies(module, _lock, lambda found: found.pop("forward"))
        module.forward = self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        call = self.forward
        for around in self.arounds:
            call = partial(_call, around, call)
        return call(*args, **kwargs)


def _call(around: Around, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return around(call, args, kwargs)


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
