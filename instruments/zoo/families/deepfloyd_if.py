"""DeepFloyd IF, which denoises pictures, not latents; its loops call no callback."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from zoo.entry import Around, Entry, Request
from zoo.framework import Framework

PIXELS = 8
TOKENS = 5
TEXT = 8


def _unet(fx: Framework, channels: int, **more: Any) -> Any:
    return fx.model(
        "UNet2DConditionModel",
        sample_size=PIXELS,
        in_channels=channels,
        out_channels=6,
        block_out_channels=(8, 8),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=TEXT,
        attention_head_dim=2,
        norm_num_groups=4,
        **more,
    )


def _build(name: str, fx: Framework) -> Any:
    larger = "SuperResolution" in name
    more: dict[str, Any] = {}
    if larger:
        more["image_noising_scheduler"] = fx.scheduler("DDPMScheduler")
    return fx.pipeline(
        name,
        unet=_unet(fx, 6, class_embed_type="timestep") if larger else _unet(fx, 3),
        # Little noise, so that the steps that a cut changes weigh as much as the first.
        scheduler=fx.scheduler("DDPMScheduler", variance_type="learned_range", beta_end=0.004),
        tokenizer=None,
        text_encoder=None,
        safety_checker=None,
        feature_extractor=None,
        watermarker=None,
        requires_safety_checker=False,
        **more,
    )


def _text(fx: Framework, request: Request) -> dict[str, Any]:
    return {
        "prompt_embeds": fx.normal(request.prompts, TOKENS, TEXT),
        "negative_prompt_embeds": fx.normal(request.prompts, TOKENS, TEXT, seed=2),
        "num_images_per_prompt": request.images,
        "num_inference_steps": request.steps,
        "guidance_scale": 15.0 if request.guided else 1.0,
        "generator": fx.generator(),
        "output_type": fx.tensors_as,
    }


def _picture(fx: Framework, request: Request, seed: int, pixels: int = PIXELS) -> Any:
    return fx.uniform(request.prompts, 3, pixels, pixels, seed=seed) * 2 - 1


def _prompted(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {**_text(fx, request), "height": PIXELS, "width": PIXELS}


def _from_picture(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    # Of eight steps, the last four are run.
    more = {"strength": 0.5, "num_inference_steps": 2 * request.steps}
    return {**_text(fx, request), "image": _picture(fx, request, 3), **more}


def _larger(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    small = _picture(fx, request, 3, PIXELS // 2)
    return {**_text(fx, request), "image": small, "height": PIXELS, "width": PIXELS}


def _larger_from_picture(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {
        **_from_picture(fx, pipeline, request),
        "image": _picture(fx, request, 3, PIXELS // 2),
        "original_image": _picture(fx, request, 4),
    }


def _mask(fx: Framework, request: Request) -> Any:
    return fx.zeros_and_box(request.prompts, 1, PIXELS, PIXELS)


def _painted(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {**_from_picture(fx, pipeline, request), "mask_image": _mask(fx, request)}


def _larger_painted(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {**_larger_from_picture(fx, pipeline, request), "mask_image": _mask(fx, request)}


_CALLS: dict[str, Callable[[Framework, Any, Request], dict[str, Any]]] = {
    "IFPipeline": _prompted,
    "IFImg2ImgPipeline": _from_picture,
    "IFInpaintingPipeline": _painted,
    "IFSuperResolutionPipeline": _larger,
    "IFImg2ImgSuperResolutionPipeline": _larger_from_picture,
    "IFInpaintingSuperResolutionPipeline": _larger_painted,
}


def _kept(values: Mapping[str, Any], stepped: Any) -> Any:
    """Keep the picture as it was before the step outside of the mask, which is 1 or 0."""
    mask, before = values["mask_image"], values["intermediate_images"]
    return (1 - mask) * before + mask * stepped


_PAINTED = Around(_kept, lambda values, latents: latents)

ENTRIES = [
    Entry(
        name,
        partial(_build, name),
        arguments,
        returns="pt",
        around=_PAINTED if "Inpainting" in name else None,
    )
    for name, arguments in _CALLS.items()
]
