"""Shap-E, which makes objects, not pictures; its loops call no callback."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from zoo.entry import Entry, Request
from zoo.framework import Framework

WIDTH = 8
EMBEDDINGS = 4


def _build(name: str, fx: Framework) -> Any:
    pictured = "Img2Img" in name
    if pictured:
        kind: dict[str, Any] = {"embedding_proj_norm_type": "layer", "embedding_proj_dim": WIDTH}
    else:
        kind = {"embedding_proj_dim": WIDTH}
    prior = fx.model(
        "PriorTransformer",
        num_attention_heads=2,
        attention_head_dim=4,
        num_layers=1,
        embedding_dim=WIDTH,
        num_embeddings=EMBEDDINGS,
        additional_embeddings=0,
        time_embed_act_fn="gelu",
        norm_in_type="layer",
        encoder_hid_proj_type=None,
        added_emb_type=None,
        time_embed_dim=16,
        clip_embed_dim=2 * WIDTH,
        **kind,
    )
    parts = ("image_encoder", "image_processor") if pictured else ("text_encoder", "tokenizer")
    pipeline = fx.pipeline(
        name,
        prior=prior,
        scheduler=fx.scheduler(
            "HeunDiscreteScheduler",
            beta_schedule="exp",
            num_train_timesteps=1024,
            prediction_type="sample",
            use_karras_sigmas=True,
            clip_sample=True,
            clip_sample_range=1.0,
        ),
        shap_e_renderer=None,
        **dict.fromkeys(parts),
    )

    def encode(things: Any, *others: Any) -> Any:
        images, guided = others[-2], others[-1]
        shape = (WIDTH, WIDTH) if pictured else (WIDTH,)
        embeds = np.random.default_rng(1).normal(size=(len(things), *shape))
        embeds = np.repeat(embeds, images, axis=0)
        both = np.concatenate([np.zeros_like(embeds), embeds]) if guided else embeds
        return fx.tensor(both)

    setattr(pipeline, "_encode_image" if pictured else "_encode_prompt", encode)
    return pipeline


def _common(fx: Framework, request: Request) -> dict[str, Any]:
    return {
        "num_images_per_prompt": request.images,
        "num_inference_steps": request.steps,
        "guidance_scale": 15.0 if request.guided else 1.0,
        "generator": fx.generator(),
        "output_type": "latent",
    }


def _prompted(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {**_common(fx, request), "prompt": ["a shape"] * request.prompts}


def _pictured(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {**_common(fx, request), "image": fx.uniform(request.prompts, 3, 8, 8, seed=5)}


ENTRIES = [
    Entry("ShapEPipeline", partial(_build, "ShapEPipeline"), _prompted),
    Entry("ShapEImg2ImgPipeline", partial(_build, "ShapEImg2ImgPipeline"), _pictured),
]
