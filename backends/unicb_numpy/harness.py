"""Lend the conformance suite what it needs of this backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from unicb.backend import Around
from unicb.testing import Case, Harness
from unicb_numpy import backend
from unicb_numpy.ops import StrictTensor
from unicb_numpy.pipelines import ToyPipeline


class NumpyHarness(Harness):
    backend = backend
    kinds = ("text2img", "order-2", "prompts")
    dtypes = ("float16", "float32", "float64")

    def build(self, kind: str) -> ToyPipeline:
        return ToyPipeline(order=2 if kind == "order-2" else 1)

    def run(self, pipeline: ToyPipeline, case: Case, **keywords: Any) -> npt.NDArray[Any]:
        return pipeline(
            [f"prompt {i}" for i in range(case.prompts)],
            num_inference_steps=case.steps,
            guidance_scale=case.guidance_scale,
            num_images_per_prompt=case.images_per_prompt,
            output_type="latent",
            **keywords,
        )

    def tensor(self, array: npt.NDArray[Any], dtype: str) -> StrictTensor:
        return StrictTensor(array.astype(np.dtype(dtype)))

    def draw(self) -> npt.NDArray[Any]:
        return np.random.normal(size=3)

    def spy(self, pipeline: ToyPipeline, around: Around) -> Callable[[], None]:
        unet = pipeline.unet

        class Spied(type(unet)):  # type: ignore[misc]
            def forward(self, *args: Any, **kwargs: Any) -> Any:
                return around(super().forward, args, kwargs)

        unet.__class__ = Spied
        return lambda: setattr(unet, "__class__", Spied.__base__)

    def traces(self, pipeline: ToyPipeline) -> object:
        return sorted(vars(pipeline.unet)), pipeline.guidance_scale


harness = NumpyHarness()
