"""Provide this backend's harness for the conformance suite."""

from __future__ import annotations

import os
from typing import Any

import numpy.typing as npt
import torch

from unicb.testing.tiny import TinyHarness
from unicb_torch import backend
from unicb_torch.pipelines import TorchPipelines

if "OMP_NUM_THREADS" not in os.environ:
    torch.set_num_threads(1)  # on tensors this small, threads only wait for each other


class TorchHarness(TinyHarness):
    backend = backend
    pipelines = TorchPipelines()
    dtypes = ("bfloat16", "float16", "float32", "float64")

    expected_failures = {
        "test_every_offered_tensor_reaches_the_loop[controlnet-inpaint]": (
            "diffusers 0.42.1 offers mask and masked_image_latents, and never takes them back"
        ),
        "test_every_offered_tensor_reaches_the_loop[xl-controlnet-inpaint]": (
            "diffusers 0.42.1 offers add_text_embeds, mask and more, and never takes them back"
        ),
    }

    def generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(0)

    def tensor(self, array: npt.NDArray[Any], dtype: str) -> torch.Tensor:
        return torch.tensor(array, dtype=getattr(torch, dtype))

    def draw(self) -> npt.NDArray[Any]:
        array: npt.NDArray[Any] = torch.randn(3).numpy()
        return array


harness = TorchHarness()
