"""The seven tensor operations, on JAX arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from unicb.ops import joinable


class JaxOps:
    def chunk(self, x: jax.Array, n: int) -> tuple[jax.Array, ...]:
        if n < 1 or x.shape[0] % n:
            raise ValueError(f"cannot chunk shape {x.shape} into {n} equal parts along axis 0")
        return tuple(jnp.split(x, n))

    def concat(self, parts: Sequence[jax.Array]) -> jax.Array:
        return jnp.concatenate(joinable(parts))

    def matmul(self, a: jax.Array, b: jax.Array) -> jax.Array:
        # By default JAX multiplies float32 in fewer bits, where the device is faster at that.
        return jnp.matmul(a, b, precision="highest")

    def clamp(self, x: jax.Array, low: float, high: float) -> jax.Array:
        return jnp.clip(x, low, high)

    def to_uint8(self, x: jax.Array) -> npt.NDArray[np.uint8]:
        return np.array(_bytes(x))

    def to_numpy(self, x: jax.Array) -> npt.NDArray[Any]:
        # np.array copies; what np.asarray gives is JAX's own memory, and cannot be written to.
        return np.array(x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x)

    def from_numpy(self, a: npt.NDArray[Any], like: jax.Array) -> jax.Array:
        # JAX on CPU may go on using the host array's memory: it gets a copy of its own.
        host = np.array(a, dtype=like.dtype, order="C")
        devices = like.devices()
        # Beside an array that is spread over devices, one without a place of its own goes along.
        placed: jax.Array = jax.device_put(host, devices.pop() if len(devices) == 1 else None)
        return placed


@jax.jit
def _bytes(x: jax.Array) -> jax.Array:
    # How numbers outside 0..255 become uint8 is up to the device, so there are none left.
    return jnp.clip(jnp.where(jnp.isnan(x), 0, x), 0, 255).astype(jnp.uint8)
