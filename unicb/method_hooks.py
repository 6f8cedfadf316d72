"""Hook a module's call, as an attribute of the instance that comes before the class's method.

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
    """Stand before a method of a module while there are hooks on it."""

    def __init__(self, module: Any, name: str) -> None:
        self.method = getattr(module, name)
        self.arounds: list[Around] = []
        self._module, self._name = module, name
        self._is_replaced = name in vars(module)  # by somebody else, before us
        self._end_plain_copies = make_plain_copies(module, _lock, self._take_away)
        setattr(module, name, self)

    def remove(self) -> None:
        """Leave the module as it was found, unless somebody has replaced its method since."""
        if vars(self._module).get(self._name) is self:
            if self._is_replaced:
                setattr(self._module, self._name, self.method)
            else:
                delattr(self._module, self._name)
        self._end_plain_copies()

    def _take_away(self, attributes: dict[str, Any]) -> None:
        """Do to a copy of the module's attributes what :meth:`remove` does to the module."""
        if attributes.get(self._name) is self:
            del attributes[self._name]
            attributes.update({self._name: self.method} if self._is_replaced else {})

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return inside(self.arounds, self.method)(*args, **kwargs)


def inside(arounds: Iterable[Around], call: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``call`` inside hooks, of which the last is outermost."""
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
                hooks.remove()

    return remove
