"""Hooks on a cell's call, through mindone's port of diffusers' registry."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from mindone.diffusers.hooks import HookRegistry, ModelHook
from mindone.diffusers.hooks.hooks import HookFunctionReference

from unicb.backend import Around
from unicb.errors import UnsupportedPipelineError

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

    def new_construct(self, module: Any, *args: Any, **kwargs: Any) -> Any:
        call = self.fn_ref.original_construct
        for around in self.arounds:
            call = partial(_call, around, call)
        return call(*args, **kwargs)


def _call(around: Around, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return around(call, args, kwargs)


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
            registry.register_hook(ours, NAME)
        ours.arounds.append(around)

    def remove() -> None:
        with _lock:
            ours.arounds.remove(around)
            if not ours.arounds:
                _unregister(registry)
                if ours.found_bare and not registry.hooks:
                    _clear(module)

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
