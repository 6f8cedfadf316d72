"""Generates pictures from the checkpoint, on PyTorch or on MindSpore, from the same latents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from drawings import Scene, random_scene
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

Latents = NDArray[np.float32]

BEST_GUIDANCE = 7.0
_BATCH = 25


def _load_torch(folder: Path) -> Any:
    from diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline.from_pretrained(folder)


def _load_mindspore(folder: Path) -> Any:
    import unicb_mindspore

    unicb_mindspore.enable_cpu()
    from mindone.diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline.from_pretrained(str(folder))


def load_pipeline(framework: str, folder: Path) -> Any:
    """Load the checkpoint's pipeline in "torch" or "mindspore", with no progress bar of its own."""
    pipeline = _load_torch(folder) if framework == "torch" else _load_mindspore(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def random_requests(count: int, seed: int) -> tuple[list[Scene], Latents]:
    """Choose scenes to ask for, and the latents (N, 4, 16, 16), float32, to start each from."""
    rng = np.random.default_rng(seed)
    scenes = [random_scene(rng) for _ in range(count)]
    return scenes, rng.standard_normal((count, 4, 16, 16), np.float32)


def _tensor(pipeline: Any, latents: Latents) -> Any:
    if type(pipeline).__module__.startswith("mindone"):
        from mindspore import Tensor

        return Tensor(latents)
    import torch

    return torch.from_numpy(latents)


def generate(
    pipeline: Any,
    prompts: Sequence[str],
    latents: Latents,
    guidance: float,
    steps: int = 25,
) -> list[Image.Image]:
    """Generate one 64 x 64 picture for each prompt, from latents (N, 4, 16, 16), float32."""
    images: list[Image.Image] = []
    with tqdm(total=len(prompts), desc=f"guidance {guidance:g}", unit="picture") as bar:
        for start in range(0, len(prompts), _BATCH):
            batch = slice(start, start + _BATCH)
            images += pipeline(
                list(prompts[batch]),
                latents=_tensor(pipeline, latents[batch]),
                guidance_scale=guidance,
                num_inference_steps=steps,
                return_dict=False,
            )[0]
            bar.update(len(images) - bar.n)
    return images
