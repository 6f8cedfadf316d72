"""BLIP-Diffusion with a ControlNet, whose loop calls no callback."""

from __future__ import annotations

from typing import Any

import numpy as np

from zoo.entry import Entry, Request
from zoo.families.diffusion_transformers import small_vae
from zoo.framework import Framework

PIXELS = 16
TOKENS = 4
TEXT = 8
_BLOCKS: dict[str, Any] = {
    "block_out_channels": (8, 8),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "layers_per_block": 1,
    "cross_attention_dim": TEXT,
    "attention_head_dim": 2,
    "norm_num_groups": 4,
}


class _Part:
    """Stand for a model or a processor that is asked for a few things only."""

    def __init__(self, **has: Any) -> None:
        vars(self).update(has)


class _Texts:
    """Stand for a tokenizer, and then for a text encoder: one embedding for all negative texts."""

    text_model = _Part(config=_Part(max_position_embeddings=TOKENS))

    def __init__(self, fx: Framework) -> None:
        self._fx = fx

    def __call__(self, texts: Any = None, input_ids: Any = None, **more: Any) -> Any:
        if input_ids is None:
            ids = np.zeros((len(texts), TOKENS), np.int64)
            on_host = more["return_tensors"] == "np"
            return _Part(input_ids=ids if on_host else self._fx.tensor(ids, "int64"))
        one = np.random.default_rng(2).normal(size=(1, TOKENS, TEXT))
        return (self._fx.tensor(np.repeat(one, input_ids.shape[0], axis=0)),)


class _Pictures:
    """Stand for an image processor: hands pictures through."""

    def __init__(self, fx: Framework) -> None:
        self._to_host = fx.backend.ops.to_numpy

    def preprocess(self, image: Any, return_tensors: str, **_: Any) -> dict[str, Any]:
        return {"pixel_values": self._to_host(image) if return_tensors == "np" else image}

    def postprocess(self, image: Any, output_type: str = "pt") -> Any:
        return image


def _build(fx: Framework) -> Any:
    pipeline = fx.pipeline(
        "BlipDiffusionControlNetPipeline",
        tokenizer=_Texts(fx),
        text_encoder=_Texts(fx),
        vae=small_vae(fx, 4),
        unet=fx.model(
            "UNet2DConditionModel",
            sample_size=PIXELS // 2,
            in_channels=4,
            out_channels=4,
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            **_BLOCKS,
        ),
        scheduler=fx.scheduler("PNDMScheduler", skip_prk_steps=True, beta_end=0.004),
        qformer=None,
        controlnet=fx.model(
            "ControlNetModel", conditioning_embedding_out_channels=(4, 8), **_BLOCKS
        ),
        image_processor=_Pictures(fx),
    )
    pipeline.get_query_embeddings = lambda *_: None
    pipeline.encode_prompt = lambda query, prompt, *_: fx.normal(len(prompt), TOKENS, TEXT)
    pipeline._build_prompt = lambda prompts, **_: prompts
    return pipeline


def _arguments(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    rows = request.prompts
    return {
        "prompt": ["a picture"] * rows,
        "reference_image": fx.uniform(rows, 3, PIXELS, PIXELS, seed=5),
        "condtioning_image": fx.uniform(rows, 3, PIXELS, PIXELS, seed=6),
        "source_subject_category": ["a thing"] * rows,
        "target_subject_category": ["a thing"] * rows,
        "num_inference_steps": request.steps,
        "guidance_scale": 15.0 if request.guided else 1.0,
        "generator": fx.generator(),
        "height": PIXELS,
        "width": PIXELS,
        "output_type": "np",
    }


ENTRIES = [
    Entry(
        "BlipDiffusionControlNetPipeline",
        _build,
        _arguments,
        {"two images per prompt": "the call has no number of pictures per prompt"},
    ),
]
