"""A VAE whose right colours are known, for the reference backend."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from unicb_numpy.ops import StrictTensor
from unicb_numpy.pipelines import ToyPipeline

Array = npt.NDArray[Any]
MIX = np.array([[1.0, 0.2, -0.1], [-0.3, 0.8, 0.4], [0.1, -0.5, 0.9], [0.4, 0.4, 0.4]])
MEAN, STD = np.array([0.5, -1.0, 2.0, 0.1]), np.array([2.0, 0.5, 1.5, 3.0])


class ToyVAE:
    """Averages 4x4 pixels, mixes their colours, and decodes the same way back."""

    video = False

    def __init__(self, **config: Any) -> None:
        self.config = SimpleNamespace(latent_channels=4, **config)
        self.calls: list[tuple[int, ...]] = []
        self.weight = StrictTensor(np.zeros((4, 3, *(1,) * (2 + self.video)), np.float32))

    def parameters(self) -> list[StrictTensor]:
        return [self.weight]

    def encode(self, x: StrictTensor, return_dict: bool = True) -> tuple[Any]:
        assert not return_dict
        self.calls.append(x.shape)
        data = x.data[:, :3, 0] if self.video else x.data[:, :3]
        n, c, h, w = data.shape
        cells = data.reshape(n, c, h // 4, 4, w // 4, 4).mean(axis=(3, 5))
        mixed = np.einsum("ncij,dc->ndij", cells, MIX)
        return (self.distribution(mixed[:, :, None] if self.video else mixed),)

    def distribution(self, mixed: Array) -> Any:
        return SimpleNamespace(mode=lambda: StrictTensor(mixed))

    def decode(self, z: StrictTensor, return_dict: bool = True) -> tuple[StrictTensor]:
        data = z.data[:, :, 0] if self.video else z.data
        colours = np.einsum("ndij,cd->ncij", data, np.linalg.pinv(MIX))
        picture = colours.repeat(4, axis=2).repeat(4, axis=3)
        return (StrictTensor(picture[:, :, None] if self.video else picture),)


class OwnedVAE(ToyVAE, ToyPipeline):
    """A model of the reference backend's, which goes by the names of base classes."""


class VideoVAE(ToyVAE):
    video = True


class MomentsVAE(ToyVAE):
    """Returns means and variances in one tensor, as mindone's do."""

    def distribution(self, mixed: Array) -> Any:
        return StrictTensor(np.concatenate([mixed, mixed - 5], axis=1))


def pipeline_with(vae: Any) -> Any:
    pipe: Any = ToyPipeline()
    pipe.vae = vae
    return pipe
