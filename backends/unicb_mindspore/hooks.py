"""Hooks on a cell's call, through mindone's port of diffusers' registry."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from mindone.diffusers.hooks import HookRegistry, ModelHook
from mindone.diffusers.hooks.hooks import HookFunctionReference

from unicb.backend import Around
from unicb.method_hooks import inside
from unicb.plain_copies import make_plain_copies
from unicb.registry_hooks import NAME, refuse_faster_cache, unregister, without_ours

_lock = threading.RLock()


class _Arounds(ModelHook):  # type: ignore[misc]
    """All of unicb's hooks on one cell: one entry in the registry, whose hooks come and go."""

    def __init__(self, found_bare: bool) -> None:
        """``found_bare``: whether nobody had hooked or replaced the call before us."""
        super().__init__()
        self.found_bare = found_bare
        self.arounds: list[Around] = []
        self.end_plain_copies: Callable[[], None]

    def take_away(self, attributes: dict[str, Any]) -> None:
        """Do to a copy of the cell's attributes what is done to the cell when our hooks go."""
        registry = attributes["_diffusers_hook"]
        if registry._hook_order[-1] == NAME:
            attributes["construct"] = self.fn_ref.original_construct
        attributes["_diffusers_hook"] = registry = without_ours(registry, "construct")
        if self.found_bare and not registry.hooks:
            del attributes["_diffusers_hook"], attributes["construct"]

    def __reduce__(self) -> Any:
        """Have whoever else refers to it, in a copy, find a hook that does nothing there."""
        return ModelHook, ()

    def new_construct(self, module: Any, *args: Any, **kwargs: Any) -> Any:
        return inside(self.arounds, self.fn_ref.original_construct)(*args, **kwargs)


def hook(module: Any, around: Around) -> Callable[[], None]:
    """See :meth:`unicb.Backend.hook`."""
    with _lock:
        registry = HookRegistry.check_if_exists_or_initialize(module)
        ours = registry.get_hook(NAME)
        if ours is None:
            ours = _Arounds(not registry.hooks and "construct" not in vars(module))
            # The registry sets this last, and another thread may be calling the cell meanwhile.
            ours.fn_ref = HookFunctionReference()
            ours.fn_ref.original_construct = module.construct
            ours.end_plain_copies = make_plain_copies(module, _lock, ours.take_away)
            registry.register_hook(ours, NAME)
        ours.arounds.append(around)

    def remove() -> None:
        with _lock:
            ours.arounds.remove(around)
            if not ours.arounds:
                unregister(registry, "construct")
                if ours.found_bare and not registry.hooks:
                    _clear(module)
                ours.end_plain_copies()

    return remove


def _clear(module: Any) -> None:
    """Take away what an empty registry leaves: itself, and a copy of the bound method."""
    vars(module).pop("_diffusers_hook", None)
    vars(module).pop("construct", None)


def reset_caches(module: Any, rehearse: bool) -> None:
    """See :meth:`unicb.Backend.reset_caches`."""
    registry = getattr(module, "_diffusers_hook", None) or HookRegistry(module)
    refuse_faster_cache(module, registry)
    if not rehearse:
        registry.reset_stateful_hooks()
