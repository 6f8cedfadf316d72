"""Hooks on the call of any object: of models that are no modules of a framework.

To call an object runs ``__call__`` of its class, whatever attributes it has. So while there are
hooks on it, it has a class of ours, made from its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from unicb.errors import UnsupportedPipelineError
from unicb.lookalike import give_class, lookalike
from unicb.method_hooks import inside

if TYPE_CHECKING:
    from unicb.backend import Around

_lock = threading.RLock()
_HOOKS = "_unicb_call_hooks"


class CallHooks:
    """Stands before the call of one object while there are hooks on it."""

    def __init__(self, obj: Any) -> None:
        self.arounds: list[Around] = []
        self._obj = obj
        self._own: Any = type(obj)
        self._kind = lookalike(self._own, {"__call__": self._called(), _HOOKS: self})
        give_class(obj, self._kind)

    def _called(self) -> Callable[..., Any]:
        def __call__(called: Any, /, *args: Any, **kwargs: Any) -> Any:
            call = partial(self._own.__call__, called)
            # What the object makes of its own class while it is hooked is another object.
            return inside(self.arounds if called is self._obj else (), call)(*args, **kwargs)

        return __call__

    def remove(self) -> None:
        """Give the object its own class back, unless somebody has given it another since."""
        if type(self._obj) is self._kind:
            give_class(self._obj, self._own)


def hook_call(obj: Any, around: Around) -> Callable[[], None]:
    """Have ``around(call, args, kwargs)`` answer every call of an object.

    Args:
        obj: of a class that Python code can make a subclass of, and give to the object.
        around: hooks nest, the latest outermost.

    Returns:
        A function that takes the hook away, in any order where there are several, and in any
        thread; the object is as it was found after the last.

    Raises:
        UnsupportedPipelineError: the object cannot be called, or its class is none of these.
    """
    name = type(obj).__name__
    if not callable(obj):
        raise UnsupportedPipelineError(f"a {name} cannot be hooked: it cannot be called")
    with _lock:
        hooks: CallHooks | None = vars(type(obj)).get(_HOOKS)
        if hooks is None:
            try:
                hooks = CallHooks(obj)
            except TypeError as error:
                raise UnsupportedPipelineError(
                    f"a {name} cannot be hooked: its class is closed to Python ({error}); put an "
                    "object of a class of your own in its place, whose __call__ calls it"
                ) from error
        hooks.arounds.append(around)

    def remove() -> None:
        with _lock:
            hooks.arounds.remove(around)
            if not hooks.arounds:
                hooks.remove()

    return remove
