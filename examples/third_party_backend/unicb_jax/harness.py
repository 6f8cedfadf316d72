"""Lend unicb's conformance suite what it needs of this backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from unicb.backend import Around
from unicb.testing import Case, Harness

from unicb_jax import backend
from unicb_jax.pipelines import ConditionalFirstPipeline, JaxPipeline

KINDS = {"text2img": JaxPipeline, "conditional-first": ConditionalFirstPipeline}

# JAX has float64 only where the whole process is told so (JAX_ENABLE_X64=1). That is its owner's
# choice, and changes what JAX does elsewhere: a backend takes it as it finds it.
WIDE = ("float64",) if jax.dtypes.canonicalize_dtype("float64") == "float64" else ()


class JaxHarness(Harness):
    backend = backend
    kinds = tuple(KINDS)
    dtypes = ("bfloat16", "float16", "float32", *WIDE)
    device = jax.devices()[0].device_kind

    def build(self, kind: str) -> JaxPipeline:
        return KINDS[kind]()

    def run(self, pipeline: JaxPipeline, case: Case, **keywords: Any) -> npt.NDArray[Any]:
        return pipeline(
            [f"prompt {i}" for i in range(case.prompts)],
            num_inference_steps=case.steps,
            guidance_scale=case.guidance_scale,
            num_images_per_prompt=case.images_per_prompt,
            output_type="latent",
            **keywords,
        )

    def tensor(self, array: npt.NDArray[Any], dtype: str) -> jax.Array:
        # Rounded by numpy, which tells what overflows. JAX knows bfloat16 as a numpy dtype.
        return jnp.array(np.asarray(array).astype(jnp.dtype(dtype)))

    def spy(self, pipeline: JaxPipeline, around: Around) -> Callable[[], None]:
        unet = pipeline.unet
        kind = type(unet)

        class Spied(kind):  # type: ignore[misc, valid-type]
            def forward(self, *args: Any, **kwargs: Any) -> Any:
                return around(super().forward, args, kwargs)

        unet.__class__ = Spied
        return lambda: setattr(unet, "__class__", kind)

    def traces(self, pipeline: JaxPipeline) -> object:
        return type(pipeline.unet), sorted(vars(pipeline.unet)), pipeline.guidance_scale


harness = JaxHarness()
