"""Versatile Diffusion and UniDiffuser, deprecated; their loops call no callback."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from zoo.entry import CASES, Entry, Request
from zoo.families.diffusion_transformers import small_vae
from zoo.framework import Framework
from zoo.words import TEXT, TOKENS, Encoder, Part, Tokenizer

PIXELS = 64
CELLS = 8
#: Tokens of a picture, which the dual-guided pipeline has in its code.
SEEN = 257


def _image_unet(fx: Framework) -> Any:
    return fx.model(
        "UNet2DConditionModel",
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        **_BLOCKS,
    )


_BLOCKS: dict[str, Any] = {
    "sample_size": CELLS,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "cross_attention_dim": TEXT,
    "attention_head_dim": 2,
    "norm_num_groups": 4,
}


def _text_unet(fx: Framework) -> Any:
    kind = fx.named(
        "UNetFlatConditionModel", "pipelines.deprecated.versatile_diffusion.modeling_text_unet"
    )
    return fx.fill(
        kind(
            down_block_types=("DownBlockFlat", "CrossAttnDownBlockFlat"),
            up_block_types=("CrossAttnUpBlockFlat", "UpBlockFlat"),
            **_BLOCKS,
        )
    )


def _embeddings(fx: Framework, tokens: int) -> Any:
    """Return what stands for an encoding method: of prompts, for so many pictures each, with an
    unconditional half or without."""

    def encode(prompt: Any, device: Any, images: int, guided: bool, *_: Any) -> Any:
        both = 20 * np.random.default_rng(1).normal(size=(2, len(prompt), tokens, TEXT))
        both = np.repeat(both, images, axis=1)
        return fx.tensor(np.concatenate(both) if guided else both[1])

    return encode


def _versatile(name: str, fx: Framework) -> Any:
    parts = {
        "image_unet": _image_unet(fx),
        "vae": small_vae(fx, 4),
        # Little noise, so that the last steps, which a cut changes, weigh as much as the first.
        "scheduler": fx.scheduler("DDIMScheduler", beta_end=0.004, clip_sample=False),
    }
    if "ImageVariation" in name:
        return _given(
            fx, fx.pipeline(name, **parts, image_feature_extractor=None, image_encoder=None)
        )
    more: dict[str, Any] = {"text_unet": _text_unet(fx), "text_encoder": Encoder(fx)}
    if "Dual" in name:
        more |= {"image_feature_extractor": None, "image_encoder": None}
    return _given(fx, fx.pipeline(name, **parts, **more, tokenizer=None))


def _given(fx: Framework, pipeline: Any) -> Any:
    pipeline._encode_prompt = pipeline._encode_text_prompt = _embeddings(fx, TOKENS)
    pipeline._encode_image_prompt = _embeddings(fx, SEEN)
    return pipeline


def _common(fx: Framework, request: Request) -> dict[str, Any]:
    return {
        "num_images_per_prompt": request.images,
        "num_inference_steps": request.steps,
        "guidance_scale": 9.0 if request.guided else 1.0,
        "generator": fx.generator(),
        "output_type": "latent",
    }


def _of_text(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {"prompt": ["a picture"] * request.prompts, **_common(fx, request)}


def _of_image(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    picture = fx.uniform(request.prompts, 3, PIXELS, PIXELS, seed=5)
    return {"image": picture, **_common(fx, request)}


def _of_both(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {"image": ["a picture"] * request.prompts, **_of_text(fx, pipeline, request)}


# UniDiffuser

_CLIP = 6


def _uni(fx: Framework) -> Any:
    module = "pipelines.deprecated.unidiffuser", "pipelines.unidiffuser"
    unet, decoder = (
        fx.named(name, *(f"{place}.{file}" for place in module))
        for name, file in (
            ("UniDiffuserModel", "modeling_uvit"),
            ("UniDiffuserTextDecoder", "modeling_text_decoder"),
        )
    )
    return fx.pipeline(
        "UniDiffuserPipeline",
        vae=small_vae(fx, 4),
        text_encoder=Encoder(fx),
        image_encoder=Part(config=Part(projection_dim=_CLIP)),
        clip_image_processor=None,
        clip_tokenizer=Tokenizer(fx),
        text_decoder=fx.fill(
            decoder(
                prefix_length=TOKENS,
                prefix_inner_dim=TEXT,
                vocab_size=16,
                n_positions=16,
                n_embd=8,
                n_layer=1,
                n_head=1,
            )
        ),
        text_tokenizer=None,
        unet=fx.fill(
            unet(
                text_dim=TEXT,
                clip_img_dim=_CLIP,
                num_text_tokens=TOKENS,
                num_attention_heads=2,
                attention_head_dim=4,
                in_channels=4,
                out_channels=4,
                num_layers=1,
                norm_num_groups=1,
                sample_size=CELLS,
                patch_size=2,
                num_embeds_ada_norm=1000,
            )
        ),
        scheduler=fx.scheduler("DDIMScheduler", beta_end=0.004, clip_sample=False),
    )


def _united(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {"prompt": ["a picture"] * request.prompts, **_common(fx, request)}


#: Of diffusers 0.42.1.
_BROKEN = dict.fromkeys(
    CASES, "its DualTransformer2DModel takes no encoder_attention_mask, which its UNet passes"
)
_NAMES = {"TextToImage": _of_text, "ImageVariation": _of_image, "DualGuided": _of_both}

ENTRIES = [
    *(
        Entry(
            f"VersatileDiffusion{name}Pipeline",
            partial(_versatile, f"VersatileDiffusion{name}Pipeline"),
            arguments,
            _BROKEN if "Dual" in name else {},
            frameworks=("torch",),
        )
        for name, arguments in _NAMES.items()
    ),
    Entry("UniDiffuserPipeline", _uni, _united),
]
