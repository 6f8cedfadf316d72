"""Hooks on a module's call, as an attribute of the instance that comes before the class's method.

For frameworks that have no registry of hooks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from unicb.plain_copies import make_plain_copies

if TYPE_CHECKING:
    from unicb.backend import Around

_lock = threading.RLock()


class MethodHooks:
    """Stands before a method of a module while there are hooks on it."""

    def __init__(self, module: Any, name: str) -> None:
        self.method, self._name = getattr(module, name), name
        #: What the instance had by that name before us: somebody may have replaced its method.
        self._found = {name: vars(module)[name]} if name in vars(module) else {}
        self.arounds: list[Around] = []
        self._end_plain_copies = make_plain_copies(module, _lock, self._take_away)
        setattr(module, name, self)

    def take_away(self, module: Any) -> None:
        """Leave the module as it was found."""
        self._take_away(vars(module))
        self._end_plain_copies()

    def _take_away(self, attributes: dict[str, Any]) -> None:
        del attributes[self._name]
        attributes.update(self._found)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return inside(self.arounds, self.method)(*args, **kwargs)


def inside(arounds: Iterable[Around], call: Callable[..., Any]) -> Callable[..., Any]:
    """``call`` inside hooks, of which the last is outermost."""
    for around in arounds:
        call = partial(_call, around, call)
    return call


def _call(around: Around, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return around(call, args, kwargs)


def hook_method(module: Any, name: str, around: Around) -> Callable[[], None]:
    """Have ``around(call, args, kwargs)`` answer every call of a module's method.

    Args:
        module: of any class. Its instances keep attributes.
        name: of the method; ``call`` is what it was.
        around: hooks nest, the latest outermost.

    Returns:
        A function that takes the hook away, in any order where there are several, and in any
        thread; the module is as it was found after the last.
    """
    with _lock:
        hooks = getattr(module, name)
        if not isinstance(hooks, MethodHooks):
            hooks = MethodHooks(module, name)
        hooks.arounds.append(around)

    def remove() -> None:
        with _lock:
            hooks.arounds.remove(around)
            if not hooks.arounds:
                hooks.take_away(module)

    return remove
