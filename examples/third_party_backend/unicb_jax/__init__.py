"""JAX arrays behind unicb's contract, with a small pipeline. Importing this imports no JAX."""

from unicb_jax.backend import JaxBackend

backend = JaxBackend()

__all__ = ["JaxBackend", "backend"]
