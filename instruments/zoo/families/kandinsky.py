"""Kandinsky 2.1, the ControlNets of 2.2, and their priors; their loops call no callback."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from zoo.entry import Entry, Request
from zoo.framework import Framework

PIXELS = 64
CELLS = 8
WIDTH = 8
TOKENS = 4
#: So that the last steps, which are those that a cut changes, weigh as much as the first.
_LITTLE_NOISE: dict[str, Any] = {"beta_end": 0.004, "clip_sample": False}


def _movq(fx: Framework) -> Any:
    return fx.model(
        "VQModel",
        block_out_channels=(4, 4, 4, 4),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        num_vq_embeddings=8,
        vq_embed_dim=4,
        norm_num_groups=2,
        sample_size=PIXELS,
    )


def _unet(fx: Framework, channels: int, kind: str) -> Any:
    added = {
        "text": {
            "encoder_hid_dim_type": "text_image_proj",
            "addition_embed_type": "text_image",
            "addition_embed_type_num_heads": 2,
            "cross_attention_dim": WIDTH,
        },
        "hint": {
            "encoder_hid_dim_type": "image_proj",
            "addition_embed_type": "image_hint",
            "cross_attention_dim": WIDTH,
        },
    }[kind]
    return fx.model(
        "UNet2DConditionModel",
        in_channels=channels,
        out_channels=8,
        sample_size=CELLS,
        block_out_channels=(8,),
        layers_per_block=1,
        down_block_types=("SimpleCrossAttnDownBlock2D",),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D",),
        resnet_time_scale_shift="scale_shift",
        encoder_hid_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=4,
        **added,
    )


def _scheduler(fx: Framework) -> Any:
    return fx.scheduler("DDIMScheduler", steps_offset=1, **_LITTLE_NOISE)


def _with_text(name: str, channels: int, fx: Framework) -> Any:
    pipeline = fx.pipeline(
        name,
        unet=_unet(fx, channels, "text"),
        movq=_movq(fx),
        scheduler=_scheduler(fx),
        text_encoder=None,
        tokenizer=None,
    )
    pipeline._encode_prompt = partial(_encoded, fx)
    return pipeline


def _encoded(fx: Framework, prompt: Any, *others: Any) -> Any:
    """Return the embeddings of prompts as the pipelines' own method gives them, unconditional rows
    first."""
    # What is left out of the arguments, if the port calls without a device, is at its front.
    images, guided = others[-3], others[-2]
    count = 1 if isinstance(prompt, str) else len(prompt)
    rows = count * images

    def numbers(seed: int, *shape: int) -> Any:
        both = np.random.default_rng(seed).normal(size=(2, count, *shape))
        both = np.repeat(both, images, axis=1)
        return both.reshape(2 * rows, *shape)[0 if guided else rows :]

    mask = np.ones((2 * rows if guided else rows, TOKENS))
    pooled, hidden = numbers(1, WIDTH), numbers(2, TOKENS, WIDTH)
    return fx.tensor(pooled), fx.tensor(hidden), fx.tensor(mask, "bool")


def _embeds(fx: Framework, request: Request) -> dict[str, Any]:
    embeds = np.random.default_rng(3).normal(size=(request.prompts, WIDTH))
    images = request.images
    if not request.guided:
        # Without guidance, the pipelines do not repeat them for several pictures.
        embeds = np.repeat(embeds, images, axis=0)
    return {
        "image_embeds": fx.tensor(embeds),
        "negative_image_embeds": fx.normal(request.prompts, WIDTH, seed=4),
        "num_images_per_prompt": images,
        "num_inference_steps": request.steps,
        "guidance_scale": 15.0 if request.guided else 1.0,
        "height": PIXELS,
        "width": PIXELS,
        "generator": fx.generator(),
        "output_type": "np",
    }


def _prompted(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {**_embeds(fx, request), "prompt": ["abcd"] * request.prompts}


def _picture(fx: Framework, request: Request, seed: int = 5) -> Any:
    return fx.uniform(request.prompts, 3, PIXELS, PIXELS, seed=seed) * 2 - 1


def _from_half(request: Request) -> dict[str, Any]:
    """Ask for eight steps, of which the last four are run."""
    return {"strength": 0.5, "num_inference_steps": 2 * request.steps}


def _from_picture(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    image = _picture(fx, request)
    return {**_prompted(fx, pipeline, request), **_from_half(request), "image": image}


def _painted(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    image = _picture(fx, request)
    mask = fx.zeros_and_box(request.prompts, 1, PIXELS, PIXELS)
    return {**_prompted(fx, pipeline, request), "image": image, "mask_image": mask}


# The ControlNets of 2.2


def _with_hint(name: str, fx: Framework) -> Any:
    parts = {"unet": _unet(fx, 8, "hint"), "movq": _movq(fx), "scheduler": _scheduler(fx)}
    return fx.pipeline(name, **parts)


def _hinted(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    made = _embeds(fx, request)
    rows = request.prompts if request.guided else request.rows
    if not request.guided:
        made["num_images_per_prompt"] = 1
    hint = np.random.default_rng(6).uniform(size=(request.prompts, 3, PIXELS, PIXELS))
    return {**made, "hint": fx.tensor(np.repeat(hint, rows // request.prompts, axis=0))}


def _hinted_picture(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    image = _picture(fx, request)
    if not request.guided:
        image = fx.tensor(np.repeat(fx.backend.ops.to_numpy(image), request.images, axis=0))
    return {**_hinted(fx, pipeline, request), **_from_half(request), "image": image}


# Priors


def _prior(name: str, fx: Framework) -> Any:
    prior = fx.model(
        "PriorTransformer",
        num_attention_heads=2,
        attention_head_dim=4,
        num_layers=1,
        embedding_dim=WIDTH,
        num_embeddings=TOKENS,
        additional_embeddings=4,
    )
    pipeline = fx.pipeline(
        name,
        prior=prior,
        scheduler=fx.scheduler(
            "UnCLIPScheduler",
            variance_type="fixed_small_log",
            prediction_type="sample",
            clip_sample_range=10.0,
        ),
        **dict.fromkeys(("image_encoder", "image_processor", "text_encoder", "tokenizer")),
    )
    pipeline._encode_prompt = partial(_encoded, fx)
    pipeline.get_zero_embed = lambda rows, *_, **__: fx.tensor(np.zeros((rows, WIDTH)))
    return pipeline


def _priored(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {
        "prompt": ["abcd"] * request.prompts,
        "num_images_per_prompt": request.images,
        "num_inference_steps": request.steps,
        "guidance_scale": 15.0 if request.guided else 1.0,
        "generator": fx.generator(),
        "output_type": "np",
    }


def _priored_picture(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    embeds = fx.normal(request.prompts, WIDTH, seed=5)
    return {**_priored(fx, pipeline, request), **_from_half(request), "image": embeds}


_BUILT: dict[str, tuple[Callable[[Framework], Any], Any]] = {
    "KandinskyPipeline": (partial(_with_text, "KandinskyPipeline", 4), _prompted),
    "KandinskyImg2ImgPipeline": (partial(_with_text, "KandinskyImg2ImgPipeline", 4), _from_picture),
    "KandinskyInpaintPipeline": (partial(_with_text, "KandinskyInpaintPipeline", 9), _painted),
    "KandinskyV22ControlnetPipeline": (
        partial(_with_hint, "KandinskyV22ControlnetPipeline"),
        _hinted,
    ),
    "KandinskyV22ControlnetImg2ImgPipeline": (
        partial(_with_hint, "KandinskyV22ControlnetImg2ImgPipeline"),
        _hinted_picture,
    ),
    "KandinskyPriorPipeline": (partial(_prior, "KandinskyPriorPipeline"), _priored),
    "KandinskyV22PriorEmb2EmbPipeline": (
        partial(_prior, "KandinskyV22PriorEmb2EmbPipeline"),
        _priored_picture,
    ),
}

ENTRIES = [Entry(name, build, arguments) for name, (build, arguments) in _BUILT.items()]
