"""The backend object that the entry point names."""

from __future__ import annotations

from functools import cached_property

from unicb.backend import Backend
from unicb.ops import TensorOps


class JaxBackend(Backend):
    """JAX needs no more than this.

    Gradients are asked for there, and random numbers come from keys that are passed on. A model's
    ``forward`` is ordinary Python that calls a compiled function: what is inside that function runs
    once, when it is traced, and is no place for a hook.
    """

    name = "jax"
    install = "pip install unicb-jax-example"
    package = "unicb_jax"
    bases = ("JaxPipeline", "UNet")
    distributions = ("jax", "jaxlib")

    @cached_property
    def ops(self) -> TensorOps:
        from unicb_jax.ops import JaxOps

        return JaxOps()

    @cached_property
    def tensor_type(self) -> type:
        import jax

        return jax.Array
