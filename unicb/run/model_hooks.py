"""Keep the hooks that a call of a pipeline has on the pipeline's models: one on each.

That one asks what is to be done when the model is called. So what is put on a model in the moment
before a call answers that call, too, and who comes first does not hang on who was put first.
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
    """``Hooked`` does what is to be done when one model is called."""

    def __init__(self) -> None:
        # Replaced as a whole: a call in another thread may be going through one.
        self.before: tuple[Callable[[], None], ...] = ()
        self.inner: tuple[Around, ...] = ()
        self.outer: tuple[Around, ...] = ()

    def has_any(self) -> bool:
        """Return whether there is anything to do."""
        return bool(self.before or self.inner or self.outer)

    def __call__(
        self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        for act in self.before:
            act()
        return inside((*self.inner, *self.outer), call)(*args, **kwargs)


class ModelHooks:
    """``ModelHooks`` does what one call of a pipeline does to its models' calls.

    Args:
        backend: of the pipeline's framework.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._hooked: dict[int, tuple[Hooked, Remove]] = {}
        self._lock = threading.Lock()

    def hook(self, model: Any, around: Around, *, outermost: bool = False) -> Remove:
        """Have ``around(call, args, kwargs)`` answer every call of a model, as in
        :meth:`unicb.Backend.hook`. Of several, the latest is outermost, but for those that are to
        be outermost anyway. Returns a function that takes it away. Idempotent.
        """
        return self._add(model, "outer" if outermost else "inner", around)

    def before(self, model: Any, act: Callable[[], None]) -> Remove:
        """Have ``act()`` called before every call of a model. What it puts on that model answers
        the call. Returns a function that ends it. Idempotent."""
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
