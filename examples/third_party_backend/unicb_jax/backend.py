"""The backend object that the entry point names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from importlib.metadata import version
from typing import Any

from unicb.backend import Around, has_base
from unicb.ops import Tensor, TensorOps


class JaxBackend:
    name = "jax"
    install = "pip install unicb-jax-example"

    @cached_property
    def ops(self) -> TensorOps:
        from unicb_jax.ops import JaxOps

        return JaxOps()

    def owns(self, pipeline: object) -> bool:
        return has_base(pipeline, "unicb_jax", "JaxPipeline")

    def is_tensor(self, value: object) -> bool:
        import jax

        return isinstance(value, jax.Array)

    def repeat(self, x: Tensor, n: int) -> Tensor:
        import jax.numpy as jnp

        return jnp.concatenate([x] * n)

    def hook(self, module: Any, around: Around) -> Callable[[], None]:
        """Puts a list of hooks, as an attribute of the instance, before the class's ``forward``.

        JAX has no registry of hooks. ``forward`` is ordinary Python that calls a compiled
        function: what is inside that function runs once, when it is traced, and is no place for
        a hook.
        """
        hooks = module.forward
        if not isinstance(hooks, Hooks):
            hooks = module.forward = Hooks(hooks)
        hooks.arounds.append(around)

        def remove() -> None:
            hooks.arounds.remove(around)
            if not hooks.arounds:
                del module.forward

        return remove

    def versions(self) -> Mapping[str, str]:
        return {name: version(name) for name in ("jax", "jaxlib")}


class Hooks:
    """Stands before a module's ``forward`` while there are hooks on it; they go in any order."""

    def __init__(self, forward: Callable[..., Any]) -> None:
        self.forward = forward
        self.arounds: list[Around] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        call = self.forward
        for around in self.arounds:
            call = _hooked(call, around)
        return call(*args, **kwargs)


def _hooked(call: Callable[..., Any], around: Around) -> Callable[..., Any]:
    return lambda *args, **kwargs: around(call, args, kwargs)
