"""The model of examples/shapes, and the scripts that it was made with."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import here
import numpy as np

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "shapes"
CHECKPOINT = EXAMPLE / "checkpoint"


def script(name: str) -> Any:
    """One of the example's modules."""
    sys.path.insert(0, str(EXAMPLE))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(EXAMPLE))


def load(class_name: str, folder: str, **keywords: Any) -> Any:
    """A part of the checkpoint."""
    return getattr(here.diffusers, class_name).from_pretrained(str(CHECKPOINT / folder), **keywords)


def drawings(count: int, seed: int) -> list[Any]:
    """Pictures as the model draws them, that no training saw."""
    draw, rng = script("drawings").random_drawing, np.random.default_rng(seed)
    return [draw(rng)[0] for _ in range(count)]


class VAEPipeline(here.diffusers.DiffusionPipeline):
    """The least that a VAE is looked for in."""

    def __init__(self, vae: Any, scheduler: Any) -> None:
        super().__init__()
        self.register_modules(vae=vae, scheduler=scheduler)
