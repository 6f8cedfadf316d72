"""Hook an object's call, in a class of ours that comes before the object's own.

For frameworks that compile a module's forward method by its name, so that nothing may stand in its
place; and for models that are no modules of a framework, but a runtime's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from unicb.errors import UnsupportedPipelineError
from unicb.given_classes import FRONT, KEPT, below, lock, put, take
from unicb.method_hooks import inside

if TYPE_CHECKING:
    from unicb.backend import Around


class _Call:
    """Stand for ``__call__``: the object's own, inside the hooks that it has."""

    def __set_name__(self, front: type, name: str) -> None:
        self._front = front

    def __get__(self, obj: Any, kind: type) -> Any:
        call = below(self._front, obj, "__call__")
        # In a class that somebody has made from one of ours, another one comes first.
        if obj is None or vars(kind).get(FRONT) is not self._front:
            return call
        return inside(_hooks_of(obj), call)

    def answering(self, obj: Any) -> None:
        return None


#: The hooks of objects that keep no attributes, by the object's id; with the object.
_elsewhere: dict[int, tuple[Any, tuple[Around, ...]]] = {}


def _hooks_of(obj: Any) -> tuple[Around, ...]:
    if hasattr(obj, "__dict__"):
        return cast("tuple[Around, ...]", vars(obj).get(KEPT, ()))
    return _elsewhere.get(id(obj), (obj, ()))[1]


def _keep(obj: Any, hooks: tuple[Around, ...]) -> None:
    if hasattr(obj, "__dict__"):
        vars(obj)[KEPT] = hooks
        if not hooks:
            del vars(obj)[KEPT]
        return
    _elsewhere[id(obj)] = obj, hooks
    if not hooks:
        del _elsewhere[id(obj)]


def hook_call(module: Any, around: Around) -> Callable[[], None]:
    """Have ``around(call, args, kwargs)`` answer every call of an object.

    A copy of it (``copy``, ``pickle``) has no hooks.

    Args:
        module: of a class that has a ``__call__``, and that Python code can make a subclass of and
            give to the object.
        around: hooks nest, the latest outermost.

    Returns:
        A function that takes the hook away, in any order where there are several, and in any
        thread; the object is as it was found after the last. Idempotent.

    Raises:
        UnsupportedPipelineError: the object cannot be called, or its class is none of these.
    """
    name = type(module).__name__
    if not callable(module):
        raise UnsupportedPipelineError(f"a {name} cannot be hooked: it cannot be called")
    ours = partial(around)  # the same one may be there twice
    with lock:
        before = _hooks_of(module)
        try:
            put(module, "__call__", _Call)
        except TypeError as error:
            raise UnsupportedPipelineError(
                f"a {name} cannot be hooked: its class is closed to Python ({error}); put an "
                "object of a class of your own in its place, whose __call__ calls it"
            ) from error
        _keep(module, (*before, ours))

    def remove() -> None:
        with lock:
            found = _hooks_of(module)
            left = tuple(one for one in found if one is not ours)
            if found:
                _keep(module, left)
            if not left:
                take(module, "__call__")

    return remove
