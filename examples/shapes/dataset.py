"""The training pictures, as tensors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from drawings import BACKGROUNDS, COLOURS, SHAPES, Scene, random_drawing
from torch import Tensor
from tqdm import trange
from transformers import CLIPTokenizer

ATTRIBUTES = (SHAPES, tuple(COLOURS), tuple(BACKGROUNDS))


@dataclass(frozen=True)
class Drawings:
    """Pictures (N, 3, 64, 64), uint8, and what they show, (N, 3) int64.

    The columns of `attributes` are places in `SHAPES`, `COLOURS` and `BACKGROUNDS`.
    """

    pictures: Tensor
    attributes: Tensor

    def __len__(self) -> int:
        return len(self.pictures)

    def normalised(self, index: Tensor) -> Tensor:
        """Return the pictures at these places, float32 in [-1, 1]."""
        return self.pictures[index].float() / 127.5 - 1


def make_drawings(count: int, seed: int) -> Drawings:
    rng = np.random.default_rng(seed)
    pictures = np.empty((count, 64, 64, 3), np.uint8)
    attributes = np.empty((count, 3), np.int64)
    for i in trange(count, desc="drawing", mininterval=5):
        picture, scene = random_drawing(rng)
        pictures[i] = np.asarray(picture)
        values = (scene.shape, scene.colour, scene.background)
        attributes[i] = [a.index(value) for a, value in zip(ATTRIBUTES, values, strict=True)]
    return Drawings(torch.from_numpy(pictures).permute(0, 3, 1, 2), torch.from_numpy(attributes))


def encode_prompts(tokenizer: CLIPTokenizer, prompts: list[str]) -> Tensor:
    """Return token numbers (N, length), int64, padded as a pipeline pads them."""
    encoded = tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt")
    return encoded.input_ids


def caption_table(tokenizer: CLIPTokenizer) -> Tensor:
    """Return the token numbers of every caption: (shapes, colours, backgrounds, length), int64."""
    captions = [
        Scene(shape, colour, background).caption
        for shape in SHAPES
        for colour in COLOURS
        for background in BACKGROUNDS
    ]
    return encode_prompts(tokenizer, captions).unflatten(0, tuple(map(len, ATTRIBUTES)))


def replace_at_random(attributes: Tensor, share: float) -> Tensor:
    """Return the attributes (N, 3), each replaced with probability `share` by a random value."""
    random = torch.stack([torch.randint(len(a), (len(attributes),)) for a in ATTRIBUTES], 1)
    return torch.where(torch.rand(attributes.shape) < share, random, attributes)
