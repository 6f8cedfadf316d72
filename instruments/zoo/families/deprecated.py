"""Deprecated text-to-video, and inpainting that puts a picture back after each step.

The loops of the first have the frames of a video as rows for the step.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from zoo.entry import Around, Entry, Request
from zoo.families.diffusion_transformers import small_vae
from zoo.framework import Framework

PIXELS = 64
CELLS = 8
TOKENS = 5
TEXT = 8
#: As many as prompts in the case of two prompts.
FRAMES = 2

_ONE_A_PROMPT = {"two images per prompt": "its call takes no number of videos per prompt"}


def _scheduler(fx: Framework) -> Any:
    # Little noise, so that the last steps, which a cut changes, weigh as much as the first.
    return fx.scheduler("DDIMScheduler", steps_offset=1, beta_end=0.004, clip_sample=False)


def _common(fx: Framework, request: Request) -> dict[str, Any]:
    return {
        # Large, so that weights this small let guidance show.
        "prompt_embeds": 20 * fx.normal(request.prompts, TOKENS, TEXT),
        "negative_prompt_embeds": 20 * fx.normal(request.prompts, TOKENS, TEXT, seed=2),
        "num_inference_steps": request.steps,
        "guidance_scale": 9.0 if request.guided else 1.0,
        "generator": fx.generator(),
        "output_type": "latent",
    }


# Text to video

_VIDEO = {
    "sample_size": CELLS,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (32, 32),
    "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"),
    "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D"),
    "cross_attention_dim": TEXT,
    "attention_head_dim": 4,
    "norm_num_groups": 4,
}


def _video(name: str, scheduler: str, fx: Framework) -> Any:
    unet = fx.model("UNet3DConditionModel", **_VIDEO)
    made = _scheduler(fx) if not scheduler else fx.scheduler(scheduler, beta_end=0.004)
    none = dict.fromkeys(("text_encoder", "tokenizer"))
    return fx.pipeline(name, unet=unet, vae=small_vae(fx, 4), scheduler=made, **none)


def _filmed(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    size = {"height": PIXELS, "width": PIXELS, "num_frames": FRAMES}
    return {**_common(fx, request), **size}


def _refilmed(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    video = fx.uniform(FRAMES, 3, PIXELS, PIXELS)
    # Of eight steps, the last four are run.
    more = {"strength": 0.5, "num_inference_steps": 2 * request.steps}
    return {**_common(fx, request), "video": video, **more}


class _Extractor:
    """A stand-in for the feature extractor has what the call asks of it."""

    crop_size = {"width": PIXELS, "height": PIXELS}


def _pictured(fx: Framework) -> Any:
    unet = fx.model("I2VGenXLUNet", **{**_VIDEO, "attention_head_dim": 2})
    pipeline = fx.pipeline(
        "I2VGenXLPipeline",
        unet=unet,
        vae=small_vae(fx, 4),
        scheduler=_scheduler(fx),
        **dict.fromkeys(("text_encoder", "tokenizer", "image_encoder", "feature_extractor")),
    )
    pipeline.feature_extractor = _Extractor()

    def encode(image: Any, *others: Any) -> Any:
        # Left out of the arguments, if the port calls without a device, is the first of these.
        rows = len(image) if isinstance(image, list) else 1
        embeds = np.random.default_rng(1).normal(size=(rows * others[-1], 1, TEXT))
        guided = pipeline.do_classifier_free_guidance
        return fx.tensor(np.concatenate([0 * embeds, embeds]) if guided else embeds)

    pipeline._encode_image = encode
    return pipeline


def _from_picture(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    from PIL import Image

    pixels = np.random.default_rng(3).integers(0, 255, (request.prompts, PIXELS, PIXELS, 3))
    pictures = [Image.fromarray(one.astype(np.uint8)) for one in pixels]
    more = {"image": pictures, "num_videos_per_prompt": request.images}
    return {**_filmed(fx, pipeline, request), **more}


def _frames_of(values: Mapping[str, Any], stepped: Any) -> Any:
    count, frames = values.get("bsz", values.get("batch_size")), values["frames"]
    rest = tuple(stepped.shape[1:])
    return stepped.reshape((count, frames, *rest)).swapaxes(1, 2)


def _as_rows(values: Mapping[str, Any], latents: Any) -> Any:
    count, channels, frames, *size = tuple(latents.shape)
    return latents.swapaxes(1, 2).reshape((count * frames, channels, *size))


_FRAMES = Around(_frames_of, _as_rows)

# Inpainting


def _unet(fx: Framework) -> Any:
    return fx.model(
        "UNet2DConditionModel",
        sample_size=CELLS,
        in_channels=4,
        out_channels=4,
        block_out_channels=(8, 8),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=TEXT,
        attention_head_dim=2,
        norm_num_groups=4,
    )


def _legacy(fx: Framework) -> Any:
    return fx.pipeline(
        "StableDiffusionInpaintPipelineLegacy",
        unet=_unet(fx),
        vae=small_vae(fx, 4),
        # Its last step leaves next to no noise on the picture, which is put back without any then.
        scheduler=fx.scheduler(
            "DDIMScheduler", steps_offset=1, beta_start=1e-6, beta_end=0.004, clip_sample=False
        ),
        requires_safety_checker=False,
        **dict.fromkeys(("text_encoder", "tokenizer", "safety_checker", "feature_extractor")),
    )


def _inpainted(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    size = request.prompts, 1, PIXELS, PIXELS
    return {
        **_common(fx, request),
        "num_images_per_prompt": request.images,
        "image": fx.uniform(request.prompts, 3, PIXELS, PIXELS) * 2 - 1,
        # 1 where the picture stays, and at the edge something between.
        "mask_image": 1 - 0.75 * fx.zeros_and_box(*size),
        # Of eight steps, the last four are run.
        "strength": 0.5,
        "num_inference_steps": 2 * request.steps,
    }


def _legacy_put_back(values: Mapping[str, Any], stepped: Any) -> Any:
    mask, scheduler = values["mask"], values["self"].scheduler
    timestep = values["t"].reshape((1,))
    picture = scheduler.add_noise(values["init_latents_orig"], values["noise"], timestep)
    return picture * mask + stepped * (1 - mask)


def _edited(fx: Framework) -> Any:
    return fx.pipeline(
        "StableDiffusionDiffEditPipeline",
        unet=_unet(fx),
        vae=small_vae(fx, 4),
        scheduler=_scheduler(fx),
        inverse_scheduler=fx.scheduler("DDIMInverseScheduler", steps_offset=1),
        requires_safety_checker=False,
        **dict.fromkeys(("text_encoder", "tokenizer", "safety_checker", "feature_extractor")),
    )


def _edit(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    inverted = fx.normal(request.prompts, request.steps, 4, CELLS, CELLS, seed=4)
    return {
        **_common(fx, request),
        "num_images_per_prompt": request.images,
        "mask_image": fx.zeros_and_box(request.prompts, 1, CELLS, CELLS),
        "image_latents": inverted,
        "inpaint_strength": 1.0,
    }


def _put_back(values: Mapping[str, Any], stepped: Any) -> Any:
    mask, picture = values["mask_image"], values["image_latents"][values["i"]]
    return stepped * mask + picture * (1 - mask)


def _as_it_is(values: Mapping[str, Any], latents: Any) -> Any:
    return latents


ENTRIES = [
    Entry(
        "TextToVideoSDPipeline",
        partial(_video, "TextToVideoSDPipeline", ""),
        _filmed,
        around=_FRAMES,
        impossible=_ONE_A_PROMPT,
    ),
    Entry(
        "TextToVideoSDPipeline",
        partial(_video, "TextToVideoSDPipeline", "DPMSolverMultistepScheduler"),
        _filmed,
        variant="DPM-Solver++",
        around=_FRAMES,
        impossible=_ONE_A_PROMPT,
    ),
    Entry(
        "VideoToVideoSDPipeline",
        partial(_video, "VideoToVideoSDPipeline", ""),
        _refilmed,
        around=_FRAMES,
        impossible={**_ONE_A_PROMPT, "two prompts": "its call makes one row of latents of a video"},
    ),
    Entry("I2VGenXLPipeline", _pictured, _from_picture, around=_FRAMES),
    Entry(
        "StableDiffusionDiffEditPipeline",
        _edited,
        _edit,
        around=Around(_put_back, _as_it_is, adds_noise=True),
    ),
    Entry(
        "StableDiffusionInpaintPipelineLegacy",
        _legacy,
        _inpainted,
        frameworks=("torch",),
        around=Around(_legacy_put_back, _as_it_is, adds_noise=True),
    ),
]
