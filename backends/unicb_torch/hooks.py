"""Hook a model's call: a torch module's through diffusers' own registry; that of any other object,
such as a runtime's, by its class."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from diffusers.hooks import HookRegistry, ModelHook
from diffusers.hooks.hooks import HookFunctionReference
from diffusers.utils.torch_utils import is_compiled_module

from unicb.backend import Around
from unicb.call_hooks import hook_call
from unicb.method_hooks import inside
from unicb.plain_copies import make_plain_copies
from unicb.registry_hooks import refuse_faster_cache
from unicb_torch.registry import NAME, unregister, without_ours

_lock = threading.RLock()
FASTER_CACHE_BLOCK = "faster_cache_block"  # diffusers' name for its hooks on attention layers


class _Arounds(ModelHook):  # type: ignore[misc]
    """``_Arounds`` holds all of unicb's hooks on one module, as one entry in the registry."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.arounds: list[Around] = []
        #: Those of the registry's attributes that the module did not have before.
        self._new = {"_diffusers_hook", "forward"} - set(vars(module))
        self._end_plain_copies = make_plain_copies(module, _lock, self._take_away)
        self._registry = HookRegistry.check_if_exists_or_initialize(module)
        # Set here because the registry sets it last, and another thread may call the module
        # meanwhile.
        self.fn_ref = HookFunctionReference()
        self.fn_ref.original_forward = module.forward
        self._registry.register_hook(self, NAME)
        self.fn_ref.__class__ = _Kept
        self._forward = module.forward

    def new_forward(self, module: Any, *args: Any, **kwargs: Any) -> Any:
        return inside(self.arounds, self.fn_ref.original_forward)(*args, **kwargs)

    def remove(self, module: Any) -> None:
        """Take the entry out of the registry.

        But leave it, and pass calls on, where the call has been replaced since without the
        registry, as accelerate does: it would take that replacement away instead.
        """
        new = self._new
        if self._registry._hook_order[-1] == NAME and module.forward is not self._forward:
            # accelerate has offloaded the module again since, below our entry, which is no longer
            # called.
            if vars(module).get("_old_forward", self._forward) is self._forward:
                return
            _forget(self._registry)
            new = new - {"forward"}
        else:
            unregister(self._registry)
        if not self._registry.hooks:
            for name in new:
                vars(module).pop(name, None)
        self._end_plain_copies()

    def _take_away(self, attributes: dict[str, Any]) -> None:
        """Remove the entry from a copy of the module's attributes, as :meth:`remove` does."""
        replaced = attributes.get("forward") is not self._forward
        # accelerate keeps the replaced call, which may be ours, under another name.
        for name in [name for name, value in attributes.items() if value is self._forward]:
            attributes[name] = self.fn_ref.original_forward
        attributes["_diffusers_hook"] = registry = without_ours(self._registry)
        registry._child_registries_cache = None  # it may count ours as the only hook
        if not registry.hooks:
            for name in self._new - ({"forward"} if replaced else set()):
                attributes.pop(name, None)

    def __reduce__(self) -> Any:
        """Let other references to this entry, in a copy, become a hook that does nothing."""
        return ModelHook, ()


class _Kept(HookFunctionReference):  # type: ignore[misc]
    """``_Kept`` is the reference by which the registry calls our entry.

    When the registry removes the hook below, it overwrites the call of the hook above with the
    remaining call. That suits a hook that adds to the call; ours replaces the call, and would be
    lost.
    """

    @property
    def forward(self) -> Any:
        return vars(self)["forward"]

    @forward.setter
    def forward(self, below: Any) -> None:
        self.original_forward = below


class _InFront:
    """``_InFront`` holds all of unicb's hooks on a compiled module, outside of the compiled call.

    The registry would put them inside, where they would be compiled, too.
    """

    def __init__(self, module: Any, attribute: str) -> None:
        self._module, self._attribute = module, attribute
        self._compiled = vars(module)[attribute]
        self.arounds: list[Around] = []
        vars(module)[attribute] = self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return inside(self.arounds, self._compiled)(*args, **kwargs)

    def remove(self, module: Any) -> None:
        if vars(module).get(self._attribute) is self:
            vars(module)[self._attribute] = self._compiled


def hook(module: Any, around: Around) -> Callable[[], None]:
    """See :meth:`unicb.Backend.hook`."""
    if not isinstance(module, torch.nn.Module):
        return hook_call(module, around)
    with _lock:
        ours = _hooks_on(module)
        ours.arounds.append(around)

    def remove() -> None:
        with _lock:
            ours.arounds.remove(around)
            if not ours.arounds:
                ours.remove(module)

    return remove


def _hooks_on(module: Any) -> _Arounds | _InFront:
    """Return the object that holds our hooks on the module; make it if there is none."""
    attribute = _compiled_call(module)
    if attribute is not None:
        there = vars(module)[attribute]
        return there if isinstance(there, _InFront) else _InFront(module, attribute)
    registry = vars(module).get("_diffusers_hook")
    ours = None if registry is None else registry.get_hook(NAME)
    return _Arounds(module) if ours is None else ours


def _compiled_call(module: Any) -> str | None:
    """Return the name of the attribute that holds a compiled call; None if nothing is compiled."""
    if is_compiled_module(module):  # a wrapper, which forwards other attributes to the module
        return "forward"
    in_place = vars(module).get("_compiled_call_impl") is not None
    return "_compiled_call_impl" if in_place else None


def _forget(registry: Any) -> None:
    """Remove our entry from the registry, without changing the module's call."""
    position = registry._hook_order.index(NAME)
    for entries in (registry._hook_order, registry._fn_refs):
        del entries[position]
    del registry.hooks[NAME]


def reset_caches(module: Any, rehearse: bool) -> None:
    """See :meth:`unicb.Backend.reset_caches`."""
    if not isinstance(module, torch.nn.Module):
        for inner in _modules_of(module):
            reset_caches(inner, rehearse)
        return
    registry = getattr(module, "_diffusers_hook", None) or HookRegistry(module)
    refuse_faster_cache(module, registry)
    if rehearse:
        return
    contexts = list(_contexts(module))
    registry.reset_stateful_hooks()
    for manager, context in contexts:
        vars(manager).update(context)
    for layer in _hooked_by(module, FASTER_CACHE_BLOCK):
        # After a reset in the middle of a run, it would answer the next call from its empty cache.
        # At this iteration number it computes.
        layer.state.iteration = layer.block_skip_range


def _modules_of(wrapper: Any) -> Iterator[torch.nn.Module]:
    """Yield the torch modules that a runtime's object wraps."""
    for value in getattr(wrapper, "__dict__", {}).values():
        if isinstance(value, torch.nn.Module):
            yield value


def _registries(module: Any) -> Iterator[Any]:
    for part in module.modules():
        if (registry := vars(part).get("_diffusers_hook")) is not None:
            yield registry


def _hooked_by(module: Any, name: str) -> Iterator[Any]:
    """Yield the hooks of this name on the module and on modules inside it."""
    for registry in _registries(module):
        if (found := registry.get_hook(name)) is not None:
            yield found


def _contexts(module: Any) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yield the caches' states and their context of the current call: which half it computes.

    A reset would clear that, too, although it is not kept from earlier calls.
    """
    for registry in _registries(module):
        for hook in registry.hooks.values():
            for manager in vars(hook).values():
                if hasattr(manager, "set_context"):
                    context = {k: v for k, v in vars(manager).items() if k.endswith("context")}
                    yield manager, context
