"""Hook an object's call, in a class that unicb puts before the object's own.

For frameworks that compile a module's forward method by its name, so that the method must not be
replaced; and for models that belong to a runtime instead of a framework.
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
    """Replace ``__call__``: run the object's own call inside its hooks."""

    def __set_name__(self, front: type, name: str) -> None:
        self._front = front

    def __get__(self, obj: Any, kind: type) -> Any:
        call = below(self._front, obj, "__call__")
        # A class that somebody has derived from one of ours has another front.
        if obj is None or vars(kind).get(FRONT) is not self._front:
            return call
        return inside(_hooks_of(obj), call)

    def answering(self, obj: Any) -> None:
        return None


#: For objects that keep no attributes: by the object's id, the object and its hooks.
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

    Copies of the object (by ``copy`` or ``pickle``) have no hooks.

    Args:
        module: a callable object whose class Python code can subclass, and whose ``__class__`` can
            be set to that subclass.
        around: the hook. Several hooks nest, the latest outermost.

    Returns:
        A function that removes the hook. Hooks may be removed in any order and in any thread; after
        the last, the object is as it was before. Idempotent.

    Raises:
        UnsupportedPipelineError: the object cannot be called, or its class cannot be subclassed so.
    """
    name = type(module).__name__
    if not callable(module):
        raise UnsupportedPipelineError(f"a {name} cannot be hooked: it cannot be called")
    ours = partial(around)  # an identity of its own: the same hook may be put twice
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
