"""Hooks on an object's call, in a class of ours that comes before the object's own.

For frameworks that compile a module's forward method by its name, so that nothing may stand in its
place.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from unicb.given_classes import FRONT, KEPT, lock, put, take
from unicb.method_hooks import inside

if TYPE_CHECKING:
    from unicb.backend import Around


class _Call:
    """Stands for ``__call__``: the object's own, inside the hooks that it has."""

    def __set_name__(self, front: type, name: str) -> None:
        self._front = front

    def __get__(self, obj: Any, kind: type) -> Any:
        below: Any = super(self._front, kind if obj is None else obj)
        # In a class that somebody has made from one of ours, another one comes first.
        if obj is None or vars(kind).get(FRONT) is not self._front:
            return below.__call__
        return inside(vars(obj).get(KEPT, ()), below.__call__)

    def answering(self, obj: Any) -> None:
        return None


def hook_call(module: Any, around: Around) -> Callable[[], None]:
    """Have ``around(call, args, kwargs)`` answer every call of an object.

    A copy of it (``copy``, ``pickle``) has no hooks.

    Args:
        module: of any class that has a ``__call__`` and whose instances keep attributes.
        around: hooks nest, the latest outermost.

    Returns:
        A function that takes the hook away, in any order where there are several, and in any
        thread; the object is as it was found after the last. Idempotent.
    """
    ours = partial(around)  # the same one may be there twice
    with lock:
        before = vars(module).get(KEPT, ())
        put(module, "__call__", _Call)
        vars(module)[KEPT] = (*before, ours)

    def remove() -> None:
        with lock:
            left = tuple(one for one in vars(module).get(KEPT, ()) if one is not ours)
            if left:
                vars(module)[KEPT] = left
            else:
                take(module, "__call__")
                vars(module).pop(KEPT, None)

    return remove
