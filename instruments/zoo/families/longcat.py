"""LongCat-Image and DreamLite, whose loops call no callback."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from zoo.entry import Entry, Request
from zoo.families.diffusion_transformers import flow
from zoo.framework import Framework

TORCH = ("torch",)
PIXELS = 64
TEXT = 8
TOKENS = 5
#: The latents of these classes have 16 channels, whatever the models.
CHANNELS = 16


class _Part:
    """Stand for a model or a processor that is asked for one thing only."""

    def __init__(self, **has: Any) -> None:
        vars(self).update(has)


def _vae(fx: Framework, levels: int) -> Any:
    return fx.model(
        "AutoencoderKL",
        block_out_channels=(2,) * levels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        latent_channels=CHANNELS,
        norm_num_groups=1,
        sample_size=PIXELS,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
        shift_factor=0.1,
    )


def _longcat(name: str, fx: Framework) -> Any:
    # Editing makes all pictures as large as a million pixels: too much at the usual scale of 8.
    edits = "Edit" in name
    transformer = fx.model(
        "LongCatImageTransformer2DModel",
        in_channels=4 * CHANNELS,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=TEXT,
        pooled_projection_dim=TEXT,
        axes_dims_rope=[2, 2, 4],
    )
    pipeline = fx.pipeline(
        name,
        scheduler=flow(fx),
        vae=_vae(fx, 7 if edits else 4),
        transformer=transformer,
        text_processor=_Part(image_processor=None),
        **dict.fromkeys(("text_encoder", "tokenizer")),
    )
    pipeline._encode_prompt = lambda prompts, *_: _texts(fx, prompts)
    return pipeline


def _texts(fx: Framework, texts: list[str]) -> Any:
    """Embed each text by the same numbers every time."""
    rows = [np.random.default_rng(sum(t.encode())).normal(size=(TOKENS, TEXT)) for t in texts]
    return fx.tensor(np.stack(rows))


def _prompted(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {
        "prompt": [f"picture {i}" for i in range(request.prompts)],
        "negative_prompt": [f"bad {i}" for i in range(request.prompts)],
        "num_images_per_prompt": request.images,
        "num_inference_steps": request.steps,
        "guidance_scale": 15.0 if request.guided else 1.0,
        "generator": fx.generator(),
        "output_type": "latent",
    }


def _sized(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    made = _prompted(fx, pipeline, request)
    return {**made, "height": PIXELS, "width": PIXELS, "enable_prompt_rewrite": False}


def _rescaled(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {**_sized(fx, pipeline, request), "enable_cfg_renorm": False}


def _picture() -> Image.Image:
    noise = np.random.default_rng(5).integers(0, 255, size=(PIXELS, PIXELS, 3))
    return Image.fromarray(noise.astype(np.uint8))


def _edited(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {**_prompted(fx, pipeline, request), "image": _picture()}


# DreamLite


def _dreamlite(name: str, fx: Framework) -> Any:
    unet = fx.model(
        "DreamLiteUNetModel",
        sample_size=8,
        in_channels=4,
        out_channels=4,
        down_block_types=(
            "DreamLiteCrossAttnNoSelfAttnDownBlock2D",
            "DreamLiteCrossAttnDownBlock2D",
        ),
        up_block_types=("DreamLiteCrossAttnUpBlock2D", "DreamLiteUpBlock2D"),
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=TEXT,
        attention_head_dim=4,
        ff_mult=2,
    )
    vae = fx.model(
        "AutoencoderTiny",
        encoder_block_out_channels=(4, 4, 4, 4),
        decoder_block_out_channels=(4, 4, 4, 4),
        num_encoder_blocks=(1, 1, 1, 1),
        num_decoder_blocks=(1, 1, 1, 1),
    )
    pipeline = fx.pipeline(
        name,
        text_encoder=_Part(dtype=fx.normal(1).dtype),
        tokenizer=None,
        processor=None,
        vae=vae,
        unet=unet,
        scheduler=flow(fx),
    )

    def encode(mode: str, prompts: list[str], **_: Any) -> Any:
        return _texts(fx, prompts), fx.tensor(np.ones((len(prompts), TOKENS)), "int64")

    pipeline.encode_prompt = encode
    return pipeline


def _generated(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {
        "prompt": "a picture",
        "num_images_per_prompt": request.images,
        "num_inference_steps": request.steps,
        "guidance_scale": 15.0 if request.guided else 1.0,
        "generator": fx.generator(),
        "height": PIXELS,
        "width": PIXELS,
        "output_type": "latent",
    }


def _generated_from(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {**_generated(fx, pipeline, request), "image": _picture()}


_ONE = {"two prompts": "the call takes one prompt"}
_ONE_PICTURE = {**_ONE, "two images per prompt": "given a picture, its own code makes one"}
_ALWAYS = "it always calls its model on both halves, whatever the scale"
_LITE = "DreamLitePipeline"

ENTRIES = [
    Entry(
        "LongCatImagePipeline",
        partial(_longcat, "LongCatImagePipeline"),
        _sized,
        frameworks=TORCH,
    ),
    Entry(
        "LongCatImagePipeline",
        partial(_longcat, "LongCatImagePipeline"),
        _rescaled,
        variant="without renorm",
        frameworks=TORCH,
    ),
    Entry(
        "LongCatImageEditPipeline",
        partial(_longcat, "LongCatImageEditPipeline"),
        _edited,
        _ONE,
        frameworks=TORCH,
    ),
    Entry(
        _LITE,
        partial(_dreamlite, _LITE),
        _generated,
        _ONE,
        frameworks=TORCH,
        off_differs=_ALWAYS,
    ),
    Entry(
        _LITE,
        partial(_dreamlite, _LITE),
        _generated_from,
        _ONE_PICTURE,
        variant="from a picture",
        frameworks=TORCH,
        off_differs=_ALWAYS,
    ),
    Entry(
        "DreamLiteMobilePipeline",
        partial(_dreamlite, "DreamLiteMobilePipeline"),
        _generated,
        _ONE,
        frameworks=TORCH,
    ),
]
