"""Remove unicb's entry from diffusers' registry of hooks."""

from __future__ import annotations

import copy
from typing import Any

NAME = "unicb"


def unregister(registry: Any) -> None:
    """Remove our entry, and repair the entry after it.

    If that entry also replaces the call, the registry overwrites it with the call that it should
    replace, and the hook would be lost.
    """
    position = registry._hook_order.index(NAME)
    later = [r for r in registry._fn_refs[position + 1 :][:1] if r.original_forward]
    replaced = [ref.forward for ref in later]
    registry.remove_hook(NAME, recurse=False)
    for ref, replacing in zip(later, replaced, strict=True):
        ref.original_forward = ref.forward
        ref.forward = replacing


def without_ours(registry: Any) -> Any:
    """Return a copy of the registry without our entry and with all others."""
    position = registry._hook_order.index(NAME)
    ours = registry.hooks[NAME]
    registry = copy.copy(registry)
    registry.hooks = {name: hook for name, hook in registry.hooks.items() if name != NAME}
    registry._hook_order = [name for name in registry._hook_order if name != NAME]
    registry._fn_refs = [ref for ref in registry._fn_refs if ref is not ours.fn_ref]
    if position < len(registry._fn_refs):  # the next entry has to call what ours would call
        above = registry._hook_order[position]
        hook, ref = copy.copy(registry.hooks[above]), copy.copy(registry._fn_refs[position])
        calls = "forward" if ref.original_forward is None else "original_forward"
        setattr(ref, calls, ours.fn_ref.original_forward)
        registry.hooks[above] = hook
        hook.fn_ref = registry._fn_refs[position] = ref
    return registry
