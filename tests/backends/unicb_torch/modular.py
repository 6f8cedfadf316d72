"""diffusers' modular pipelines on the models of classic ones, without a hub."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import ways
from diffusers.modular_pipelines import StableDiffusionXLAutoBlocks, WanBlocks

from zoo.entry import Request

BLOCKS = {"StableDiffusionXLPipeline": StableDiffusionXLAutoBlocks, "WanPipeline": WanBlocks}
#: What only a classic call takes.
CLASSIC = ("guidance_scale", "num_videos_per_prompt")


@dataclass
class Both:
    """A classic pipeline, and the denoising blocks of the modular one on the same models.

    Attributes:
        pipe: the classic pipeline.
        blocks: the modular one.
        scale: what the classic one is called with.
        given: what both are called with: embeddings, and the noise.
    """

    pipe: Any
    blocks: Any
    scale: float
    given: dict[str, Any]

    def classic(self, scale: float | None = None, **callbacks: Any) -> Any:
        """The latents that the classic loop ends with."""
        out = self.pipe(**self.given, guidance_scale=scale or self.scale, **callbacks)
        return out[0].numpy()

    def modular(self, guider: Any) -> Any:
        """Those of the modular one, with a guider."""
        self.blocks.update_components(guider=guider)
        return self.blocks(**self.given, output="latents").numpy()


def both(title: str, request: Request) -> Both:
    """The two pipelines of a class of the zoo, and a request."""
    fx, pipe = ways.framework("torch"), ways.pipeline("torch", title)
    given = ways.all_entries("torch")[title].arguments(fx, pipe, request)
    given["generator"] = None
    if "prompt" in given:
        prompts = given.pop("prompt")
        negative = [given.pop("negative_prompt")] * len(prompts)
        embedded = pipe.encode_prompt(prompts, negative, do_classifier_free_guidance=True)
        given |= zip(("prompt_embeds", "negative_prompt_embeds"), embedded, strict=True)
    shapes: list[Any] = []

    def note(pipe: Any, i: int, t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        shapes.append(tensors["latents"].shape)
        return tensors

    pipe(**given, callback_on_step_end=note)
    noise = torch.randn(shapes[0], generator=torch.Generator().manual_seed(3))
    given["latents"] = noise
    scale = given["guidance_scale"]
    for name in CLASSIC:
        given.pop(name, None)
    blocks = BLOCKS[title]().sub_blocks["denoise"].init_pipeline()
    parts = {name: x for name, x in pipe.components.items() if name in blocks.components}
    blocks.update_components(**{name: x for name, x in parts.items() if x is not None})
    return Both(pipe, blocks, scale, given)
