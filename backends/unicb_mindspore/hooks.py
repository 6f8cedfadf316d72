"""Hooks on a cell's call, through mindone's port of diffusers' registry."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any

from mindone.diffusers.hooks import HookRegistry, ModelHook
from mindone.diffusers.hooks.hooks import HookFunctionReference

from unicb.backend import Around
from unicb.errors import UnsupportedPipelineError
from unicb.method_hooks import inside
from unicb.plain_copies import make_plain_copies

NAME = "unicb"
_lock = threading.RLock()
FASTER_CACHE = "faster_cache_denoiser"  # as the framework names its hook


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
        attributes["_diffusers_hook"] = registry = _without_ours(registry)
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
                _unregister(registry)
                if ours.found_bare and not registry.hooks:
                    _clear(module)
                ours.end_plain_copies()

    return remove


def _unregister(registry: Any) -> None:
    """Remove our entry, and mend what the registry does to the next one.

    Where that one replaces the call too, the registry puts the call that it should replace in its
    place, and the hook is lost.
    """
    position = registry._hook_order.index(NAME)
    later = [ref for ref in registry._fn_refs[position + 1 :][:1] if ref.original_construct]
    replaced = [ref.construct for ref in later]
    registry.remove_hook(NAME, recurse=False)
    for ref, construct in zip(later, replaced, strict=True):
        ref.original_construct, ref.construct = ref.construct, construct


def _without_ours(registry: Any) -> Any:
    """A copy of the registry in which we have no entry; the hooks in it are those of others."""
    ours, position = registry.hooks[NAME], registry._hook_order.index(NAME)
    registry = copy.copy(registry)
    registry.hooks = {name: hook for name, hook in registry.hooks.items() if name != NAME}
    registry._hook_order = [name for name in registry._hook_order if name != NAME]
    registry._fn_refs = [ref for ref in registry._fn_refs if ref is not ours.fn_ref]
    if position < len(registry._fn_refs):  # what the next one calls is what we would
        above = registry._hook_order[position]
        hook, ref = copy.copy(registry.hooks[above]), copy.copy(registry._fn_refs[position])
        calls = "construct" if ref.original_construct is None else "original_construct"
        setattr(ref, calls, ours.fn_ref.original_construct)
        registry.hooks[above] = hook
        hook.fn_ref = registry._fn_refs[position] = ref
    return registry


def _clear(module: Any) -> None:
    """Take away what an empty registry leaves: itself, and a copy of the bound method."""
    vars(module).pop("_diffusers_hook", None)
    vars(module).pop("construct", None)


def reset_caches(module: Any, rehearse: bool) -> None:
    """See :meth:`unicb.Backend.reset_caches`."""
    registry = getattr(module, "_diffusers_hook", None) or HookRegistry(module)
    faster_cache = registry.get_hook(FASTER_CACHE)
    if faster_cache is not None and not faster_cache.is_guidance_distilled:
        raise UnsupportedPipelineError(
            f"cannot cut guidance while FasterCache is enabled on the {type(module).__name__}: "
            "FasterCache makes the unconditional half up from earlier steps, and needs it in every "
            "call; disable it (disable_cache()), or leave out the callback that cuts guidance"
        )
    if not rehearse:
        registry.reset_stateful_hooks()
