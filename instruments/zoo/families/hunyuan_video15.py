"""HunyuanVideo 1.5, guided by a guider, and Kandinsky 6's upscaler, without a callback."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from zoo.entry import Entry, Request
from zoo.families.diffusion_transformers import flow
from zoo.framework import Framework

TORCH = ("torch",)
PIXELS = 32
TEXT, GLYPHS, IMAGE = 8, 6, 4
TOKENS = 4
CHANNELS = 4
FRAMES = 5


def _hunyuan(name: str, guider: str, fx: Framework) -> Any:
    transformer = fx.model(
        "HunyuanVideo15Transformer3DModel",
        in_channels=2 * CHANNELS + 1,
        out_channels=CHANNELS,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=1,
        num_refiner_layers=1,
        mlp_ratio=1.0,
        text_embed_dim=TEXT,
        text_embed_2_dim=GLYPHS,
        image_embed_dim=IMAGE,
        rope_axes_dim=(4, 2, 2),
        target_size=PIXELS,
        task_type="i2v" if "ImageTo" in name else "t2v",
    )
    vae = fx.model(
        "AutoencoderKLHunyuanVideo15",
        latent_channels=CHANNELS,
        block_out_channels=(4, 4, 8, 8, 8),
        layers_per_block=1,
    )
    vae.enable_slicing()  # it decodes one video only
    more = dict.fromkeys(("image_encoder", "feature_extractor")) if "ImageTo" in name else {}
    pipeline = fx.pipeline(
        name,
        transformer=transformer,
        vae=vae,
        scheduler=flow(fx),
        guider=getattr(fx.library, guider)(guidance_scale=15.0),
        **dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")),
        **more,
    )
    pipeline.vision_num_semantic_tokens = TOKENS
    pipeline.encode_image = lambda image, batch_size, device, dtype: fx.normal(
        1, TOKENS, IMAGE
    ).repeat(batch_size, 1, 1)
    return pipeline


def _prompted(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    rows = request.prompts
    pipeline.guider.guidance_scale = 15.0 if request.guided else 1.0
    mask = fx.tensor(np.ones((rows, TOKENS)), "int64")
    made: dict[str, Any] = {}
    for number, prefix in enumerate(("", "negative_")):
        made[f"{prefix}prompt_embeds"] = fx.normal(rows, TOKENS, TEXT, seed=number + 1)
        made[f"{prefix}prompt_embeds_2"] = fx.normal(rows, TOKENS, GLYPHS, seed=number + 3)
        made[f"{prefix}prompt_embeds_mask"] = made[f"{prefix}prompt_embeds_mask_2"] = mask
    return {
        **made,
        "num_videos_per_prompt": request.images,
        "num_inference_steps": request.steps,
        "num_frames": FRAMES,
        "height": PIXELS,
        "width": PIXELS,
        "generator": fx.generator(),
        "output_type": "latent",
    }


def _from_picture(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    made = _prompted(fx, pipeline, request)
    del made["height"], made["width"]
    noise = np.random.default_rng(5).integers(0, 255, size=(PIXELS, PIXELS, 3))
    return {**made, "image": Image.fromarray(noise.astype(np.uint8))}


# Kandinsky 6


def _sr(fx: Framework) -> Any:
    transformer = fx.model(
        "Kandinsky6SRTransformer3DModel",
        in_visual_dim=CHANNELS,
        out_visual_dim=CHANNELS,
        time_dim=8,
        model_dim=24,
        ff_dim=16,
        num_visual_blocks=1,
        axes_dims=(8, 8, 8),
        tile_sizes=((4 * PIXELS, 4 * PIXELS),),
    )
    vae = fx.model(
        "Kandinsky6SRVAE",
        latent_channels=CHANNELS,
        encoder_block_out_channels=(4, 4, 4, 4, 4),
        decoder_block_out_channels=(4, 4, 4, 4, 4),
        layers_per_block=1,
    )
    parts = {"transformer": transformer, "vae": vae, "scheduler": flow(fx)}
    return fx.pipeline("Kandinsky6SRPipeline", **parts)


def _enlarged(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {
        "video": fx.uniform(1, FRAMES, 3, 2 * PIXELS, 2 * PIXELS, seed=5),
        "resolution_scale": 2,
        "num_inference_steps": request.steps,
        "generator": fx.generator(),
        "output_type": "np",
    }


_GUIDERS = ("ClassifierFreeGuidance", "AdaptiveProjectedGuidance", "ClassifierFreeZeroStarGuidance")
_ONE_VIDEO = {"two images per prompt": "its own code has image embeddings for one video a prompt"}
_ONE = {
    "two prompts": "each video is denoised alone",
    "two images per prompt": "the call makes one video of each",
}

ENTRIES = [
    *(
        Entry(
            name,
            partial(_hunyuan, name, guider),
            arguments,
            impossible,
            variant="" if guider == _GUIDERS[0] else guider,
            frameworks=TORCH,
        )
        for name, arguments, impossible in (
            ("HunyuanVideo15Pipeline", _prompted, _ONE_VIDEO),
            ("HunyuanVideo15ImageToVideoPipeline", _from_picture, {}),
        )
        for guider in _GUIDERS
    ),
    Entry("Kandinsky6SRPipeline", _sr, _enlarged, _ONE, frameworks=TORCH),
]
