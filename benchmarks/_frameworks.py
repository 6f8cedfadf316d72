"""Hide what differs between the frameworks: tensors, a denoiser's work, and their guides'
preview."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

#: Rows for red, green, blue, and their biases: ``rgb = weights @ latents + biases``.
Weights = npt.NDArray[np.float64]


class Framework(Protocol):
    name: str

    @property
    def library(self) -> Any:
        """Return diffusers, or its port."""

    def tensor(self, array: npt.NDArray[Any]) -> Any:
        """Make a float32 tensor."""

    def model(self, class_name: str, **config: Any) -> Any:
        """Return a model of the library, in evaluation mode, with random weights of a fixed
        seed."""

    def work(self, edge: int) -> Callable[[int], None]:
        """Return a function that does so many products of two square matrices, and waits for
        them."""

    def latents_to_rgb(self, latents: Any, weights: Weights, biases: Weights) -> Image.Image:
        """Show the first row of the batch as the framework's guide does."""


class Torch:
    """torch and diffusers, on a CPU, with one thread of torch's.

    One thread leaves the other core to unicb's, as a GPU would leave the CPU.
    """

    name = "torch"

    def __init__(self) -> None:
        import torch

        torch.set_num_threads(1)
        self._torch = torch

    @property
    def library(self) -> Any:
        return importlib.import_module("diffusers")

    def tensor(self, array: npt.NDArray[Any]) -> Any:
        return self._torch.tensor(array, dtype=self._torch.float32)

    def model(self, class_name: str, **config: Any) -> Any:
        self._torch.manual_seed(0)
        return getattr(self.library, class_name)(**config).eval().requires_grad_(False)

    def work(self, edge: int) -> Callable[[int], None]:
        a = self.tensor(np.random.default_rng(0).normal(size=(edge, edge)))

        def run(count: int) -> None:
            for _ in range(count):
                a @ a

        return run

    def latents_to_rgb(self, latents: Any, weights: Weights, biases: Weights) -> Image.Image:
        """Make a picture as "Display image after each generation step" of diffusers' guide to
        callbacks does."""
        torch = self._torch
        matrix = torch.tensor(weights, dtype=latents.dtype).to(latents.device).t()
        bias = torch.tensor(biases, dtype=latents.dtype).to(latents.device)
        rgb = torch.einsum("...lxy,lr -> ...rxy", latents, matrix) + bias[:, None, None]
        array = rgb.clamp(0, 255)[0].byte().cpu().numpy()
        return Image.fromarray(array.transpose(1, 2, 0))


class MindSpore:
    """MindSpore and mindone, on a CPU."""

    name = "mindspore"

    def __init__(self) -> None:
        import mindspore

        from unicb_mindspore import enable_cpu

        enable_cpu()
        self._mindspore = mindspore

    @property
    def library(self) -> Any:
        return importlib.import_module("mindone.diffusers")

    def tensor(self, array: npt.NDArray[Any]) -> Any:
        return self._mindspore.Tensor(array, dtype=self._mindspore.float32)

    def model(self, class_name: str, **config: Any) -> Any:
        self._mindspore.set_seed(0)
        return getattr(self.library, class_name)(**config).set_train(False)

    def work(self, edge: int) -> Callable[[int], None]:
        ops = self._mindspore.ops
        a = self.tensor(np.random.default_rng(0).normal(size=(edge, edge)))

        def run(count: int) -> None:
            for _ in range(count):
                # MindSpore launches in the background: wait, or a callback would have to.
                ops.matmul(a, a).asnumpy()

        return run

    def latents_to_rgb(self, latents: Any, weights: Weights, biases: Weights) -> Image.Image:
        """Make a picture as the same chapter of mindone's guide does, which writes the einsum as a
        matmul."""
        ms, ops = self._mindspore, self._mindspore.ops
        height, width = latents.shape[-2:]
        matrix = ops.t(ms.Tensor(weights, dtype=latents.dtype))
        bias = ms.Tensor(biases, dtype=latents.dtype)
        flat = latents.view(*latents.shape[:-2], -1)
        rgb = ops.matmul(matrix.transpose(1, 0), flat).view(-1, 3, height, width)
        rgb = rgb + bias.unsqueeze(-1).unsqueeze(-1)
        array = rgb.clamp(0, 255)[0].to(ms.uint8).asnumpy()
        return Image.fromarray(array.transpose(1, 2, 0))


def framework(name: str) -> Framework:
    """Return the framework of that name, ready to compute on a CPU."""
    return Torch() if name == "torch" else MindSpore()
