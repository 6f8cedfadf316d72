"""A hook on a cell's call, through mindone's port of diffusers' registry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mindone.diffusers.hooks import HookRegistry, ModelHook

from unicb.backend import Around


class _AroundHook(ModelHook):  # type: ignore[misc]
    def __init__(self, around: Around) -> None:
        super().__init__()
        self._around = around

    def new_construct(self, module: Any, *args: Any, **kwargs: Any) -> Any:
        return self._around(self.fn_ref.original_construct, args, kwargs)


def hook(module: Any, around: Around) -> Callable[[], None]:
    """See :meth:`unicb.Backend.hook`."""
    had_registry = hasattr(module, "_diffusers_hook")
    had_construct = "construct" in vars(module)
    registry = HookRegistry.check_if_exists_or_initialize(module)
    added = _AroundHook(around)
    name = f"unicb-{id(added)}"
    registry.register_hook(added, name)

    def remove() -> None:
        registry.remove_hook(name, recurse=False)
        # The registry leaves itself and a copy of the bound method behind. Other hooks that have
        # come since need both. Past the cell's own __delattr__, which looks for parameters only.
        if not registry.hooks:
            if not had_registry:
                vars(module).pop("_diffusers_hook", None)
            if not had_construct:
                vars(module).pop("construct", None)

    return remove
