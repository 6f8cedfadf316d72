"""Keep one hook on each of a pipeline's models for a call of the pipeline.

When the model is called, that hook runs all functions registered at that moment. So a function
registered just before a call is part of it, and the order does not depend on the order of
registration.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, TypeAlias

from unicb.backend import Around, Backend
from unicb.method_hooks import inside

log = logging.getLogger("unicb")

Remove: TypeAlias = Callable[[], None]


class Hooked:
    """``Hooked`` runs the registered functions when one model is called."""

    def __init__(self) -> None:
        # Replaced as a whole, since a call in another thread may be iterating over the old tuple.
        self.before: tuple[Callable[[], None], ...] = ()
        self.inner: tuple[Around, ...] = ()
        self.outer: tuple[Around, ...] = ()

    def has_any(self) -> bool:
        """Return whether any function is registered."""
        return bool(self.before or self.inner or self.outer)

    def __call__(
        self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        for act in self.before:
            act()
        return inside((*self.inner, *self.outer), call)(*args, **kwargs)


class ModelHooks:
    """``ModelHooks`` registers what one call of a pipeline does in its models' calls.

    Args:
        backend: the backend of the pipeline's framework.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._hooked: dict[int, tuple[Hooked, Remove]] = {}
        self._lock = threading.Lock()

    def hook(self, model: Any, around: Around, *, outermost: bool = False) -> Remove:
        """Let ``around(call, args, kwargs)`` answer every call of a model, as in
        :meth:`unicb.Backend.hook`. Several hooks nest, the latest outermost, except that those with
        ``outermost`` are outside of all others. Returns a function that removes the hook, which is
        idempotent.
        """
        return self._add(model, "outer" if outermost else "inner", around)

    def before(self, model: Any, act: Callable[[], None]) -> Remove:
        """Call ``act()`` before every call of a model; hooks that it puts on the model take part in
        that call. Returns a function that ends this, which is idempotent."""
        return self._add(model, "before", act)

    def _add(self, model: Any, place: str, what: Callable[..., Any]) -> Remove:
        with self._lock:
            if id(model) not in self._hooked:
                hooked = Hooked()
                self._hooked[id(model)] = hooked, self._backend.hook(model, hooked)
                if log.isEnabledFor(logging.DEBUG):
                    log.debug("hook put on %s", type(model).__name__)
            hooked, unhook = self._hooked[id(model)]
            setattr(hooked, place, (*getattr(hooked, place), what))

        def remove() -> None:
            with self._lock:
                left = tuple(one for one in getattr(hooked, place) if one is not what)
                setattr(hooked, place, left)
                if self._hooked.get(id(model)) == (hooked, unhook) and not hooked.has_any():
                    del self._hooked[id(model)]
                    unhook()
                    if log.isEnabledFor(logging.DEBUG):
                        log.debug("hook taken from %s", type(model).__name__)

        return remove
