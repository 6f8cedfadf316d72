"""The backend object that the entry point names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from importlib.metadata import version
from typing import Any

from unicb.backend import Around, T, at_once, has_base
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

    def aside(self, work: Callable[..., T], tensors: Sequence[Tensor]) -> Callable[[], T]:
        return at_once(work, self.ops, tensors)

    def untouched(self) -> AbstractContextManager[None]:
        """Gradients are asked for here, and random numbers come from keys that are passed on."""
        return nullcontext()

    def hook(self, module: Any, around: Around) -> Callable[[], None]:
        from unicb_jax.hooks import hook

        return hook(module, around)

    def reset_caches(self, module: Any, *, rehearse: bool = False) -> None:
        """This framework has no hooks that cache."""

    def versions(self) -> Mapping[str, str]:
        return {name: version(name) for name in ("jax", "jaxlib")}
