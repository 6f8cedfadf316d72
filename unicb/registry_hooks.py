"""Our entry in a registry of hooks that is shaped like diffusers', among those of others.

For backends of frameworks that have one. ``call`` names the method that a module's call runs.
"""

from __future__ import annotations

import copy
from typing import Any

from unicb.errors import UnsupportedPipelineError

NAME = "unicb"
FASTER_CACHE = "faster_cache_denoiser"  # as the frameworks name their hook


def unregister(registry: Any, call: str) -> None:
    """Remove our entry, and mend what the registry does to the next one.

    Where that one replaces the call too, the registry puts the call that it should replace in its
    place, and the hook is lost.
    """
    original, position = f"original_{call}", registry._hook_order.index(NAME)
    later = [r for r in registry._fn_refs[position + 1 :][:1] if getattr(r, original)]
    replaced = [getattr(ref, call) for ref in later]
    registry.remove_hook(NAME, recurse=False)
    for ref, replacing in zip(later, replaced, strict=True):
        setattr(ref, original, getattr(ref, call))
        setattr(ref, call, replacing)


def without_ours(registry: Any, call: str) -> Any:
    """A copy of the registry in which we have no entry; the hooks in it are those of others."""
    original, position = f"original_{call}", registry._hook_order.index(NAME)
    ours = registry.hooks[NAME]
    registry = copy.copy(registry)
    registry.hooks = {name: hook for name, hook in registry.hooks.items() if name != NAME}
    registry._hook_order = [name for name in registry._hook_order if name != NAME]
    registry._fn_refs = [ref for ref in registry._fn_refs if ref is not ours.fn_ref]
    if position < len(registry._fn_refs):  # what the next one calls is what we would
        above = registry._hook_order[position]
        hook, ref = copy.copy(registry.hooks[above]), copy.copy(registry._fn_refs[position])
        calls = call if getattr(ref, original) is None else original
        setattr(ref, calls, getattr(ours.fn_ref, original))
        registry.hooks[above] = hook
        hook.fn_ref = registry._fn_refs[position] = ref
    return registry


def refuse_faster_cache(module: Any, registry: Any) -> None:
    """Raise UnsupportedPipelineError where the module's rows are not for us to leave out."""
    faster_cache = registry.get_hook(FASTER_CACHE)
    if faster_cache is not None and not faster_cache.is_guidance_distilled:
        raise UnsupportedPipelineError(
            f"cannot cut guidance while FasterCache is enabled on the {type(module).__name__}: "
            "FasterCache makes the unconditional half up from earlier steps, and needs it in every "
            "call; disable it (disable_cache()), or leave out the callback that cuts guidance"
        )
