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
    """Replace a method of a module while there are hooks on it."""

    def __init__(self, module: Any, name: str) -> None:
        self.method = getattr(module, name)
        self.arounds: list[Around] = []
        self._module, self._name = module, name
        self._is_replaced = name in vars(module)  # somebody else has replaced the method before
        self._end_plain_copies = make_plain_copies(module, _lock, self._take_away)
        setattr(module, name, self)

    def remove(self) -> None:
        """Put the module's method back, unless somebody has replaced it since."""
        if vars(self._module).get(self._name) is self:
            if self._is_replaced:
                setattr(self._module, self._name, self.method)
            else:
                delattr(self._module, self._name)
        self._end_plain_copies()

    def _take_away(self, attributes: dict[str, Any]) -> None:
        """Remove the hooks from a dict of the module's attributes, as :meth:`remove` does."""
        if attributes.get(self._name) is self:
            del attributes[self._name]
            attributes.update({self._name: self.method} if self._is_replaced else {})

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return inside(self.arounds, self.method)(*args, **kwargs)


def inside(arounds: Iterable[Around], call: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``call`` wrapped in the hooks, the last one outermost."""
    for around in arounds:
        call = partial(_call, around, call)
    return call


def _call(around: Around, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return around(call, args, kwargs)


def hook_method(module: Any, name: str, around: Around) -> Callable[[], None]:
    """Have ``around(call, args, kwargs)`` answer every call of a module's method.

    Args:
        module: any object that keeps attributes.
        name: the method's name; ``call`` is the method as it was.
        around: the hook. Several hooks nest, the latest outermost.

    Returns:
        A function that removes the hook. Hooks may be removed in any order and in any thread; after
        the last, the module is as it was before.
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
