"""Upscalers, adapters and variations on Stable Diffusion, whose loops call no callback."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from zoo.entry import Entry, Request
from zoo.families.diffusion_transformers import small_vae
from zoo.framework import Framework

PIXELS = 64
CELLS = 8
TOKENS = 5
TEXT = POOLED = 8
TIME = 4

_BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
_XL = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": TIME,
    "projection_class_embeddings_input_dim": 6 * TIME + POOLED,
    "use_linear_projection": True,
}


def _unet(fx: Framework, channels: int, out: int = 4, **more: Any) -> Any:
    return fx.model(
        "UNet2DConditionModel",
        sample_size=CELLS,
        in_channels=channels,
        out_channels=out,
        block_out_channels=(8, 8),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=TEXT,
        attention_head_dim=2,
        norm_num_groups=4,
        **more,
    )


def _scheduler(fx: Framework, class_name: str = "DDIMScheduler") -> Any:
    more = {"skip_prk_steps": True} if class_name == "PNDMScheduler" else {}
    return fx.scheduler(class_name, **_BETAS, **more)


def _text(fx: Framework, request: Request) -> dict[str, Any]:
    return {
        "prompt_embeds": fx.normal(request.prompts, TOKENS, TEXT),
        "negative_prompt_embeds": fx.normal(request.prompts, TOKENS, TEXT, seed=2),
        **_common(fx, request),
    }


def _common(fx: Framework, request: Request) -> dict[str, Any]:
    return {
        "num_images_per_prompt": request.images,
        "num_inference_steps": request.steps,
        "guidance_scale": 15.0 if request.guided else 1.0,
        "generator": fx.generator(),
        "output_type": "latent",
    }


def _pooled(fx: Framework, request: Request) -> dict[str, Any]:
    return {
        "pooled_prompt_embeds": fx.normal(request.prompts, POOLED, seed=3),
        "negative_pooled_prompt_embeds": fx.normal(request.prompts, POOLED, seed=4),
    }


# T2I-Adapter


def _adapter(name: str, scheduler: str, fx: Framework) -> Any:
    xl = "XL" in name
    adapter = fx.model(
        "T2IAdapter",
        in_channels=3,
        channels=[8, 8],
        num_res_blocks=1,
        downscale_factor=8,
        adapter_type="full_adapter",
    )
    parts = {"unet": _unet(fx, 4, **(_XL if xl else {})), "vae": small_vae(fx, 4)}
    none = dict.fromkeys(("text_encoder", "tokenizer", "feature_extractor"))
    if xl:
        none |= dict.fromkeys(("text_encoder_2", "tokenizer_2", "image_encoder"))
        more: dict[str, Any] = {}
    else:
        more = {"safety_checker": None, "requires_safety_checker": False}
    made = {"scheduler": _scheduler(fx, scheduler), "adapter": adapter}
    return fx.pipeline(name, **parts, **made, **none, **more)


def _adapted(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    picture = fx.uniform(request.prompts, 3, PIXELS, PIXELS, seed=5)
    return {**_text(fx, request), "image": picture, "height": PIXELS, "width": PIXELS}


def _adapted_xl(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {**_adapted(fx, pipeline, request), **_pooled(fx, request)}


# Upscalers


def _latent_upscale(fx: Framework) -> Any:
    # Its model predicts a fifth channel, which the loop drops.
    unet = _unet(fx, 8, 5, time_cond_proj_dim=128 + POOLED)
    return fx.pipeline(
        "StableDiffusionLatentUpscalePipeline",
        unet=unet,
        vae=small_vae(fx, 4),
        scheduler=_scheduler(fx, "EulerDiscreteScheduler"),
        text_encoder=None,
        tokenizer=None,
    )


def _upscaled_latents(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    made = {**_text(fx, request), **_pooled(fx, request)}
    del made["num_images_per_prompt"]
    return {**made, "image": fx.normal(request.prompts, 4, CELLS // 2, CELLS // 2, seed=5)}


def _upscale(fx: Framework) -> Any:
    vae = fx.model(  # the pipeline asks for what comes before its decoder
        "AutoencoderKL",
        block_out_channels=(2, 2, 2),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=4,
        norm_num_groups=1,
        sample_size=PIXELS,
        force_upcast=False,
    )
    return fx.pipeline(
        "StableDiffusionUpscalePipeline",
        unet=_unet(fx, 7, num_class_embeds=1000),
        vae=vae,
        low_res_scheduler=fx.scheduler("DDPMScheduler"),
        scheduler=_scheduler(fx),
        text_encoder=None,
        tokenizer=None,
    )


def _upscaled(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    picture = fx.uniform(request.prompts, 3, CELLS, CELLS, seed=5)
    return {**_text(fx, request), "image": picture}


# From a picture


def _variation(fx: Framework) -> Any:
    pipeline = fx.pipeline(
        "StableDiffusionImageVariationPipeline",
        unet=_unet(fx, 4),
        vae=small_vae(fx, 4),
        scheduler=_scheduler(fx),
        image_encoder=None,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )

    def encode(image: Any, *device_and_more: Any) -> Any:
        images, guided = device_and_more[-2:]
        of_pictures = np.random.default_rng(1).normal(size=(len(image), 1, TEXT))
        embeds = np.repeat(of_pictures, images, axis=0)
        both = np.concatenate([np.zeros_like(embeds), embeds]) if guided else embeds
        return fx.tensor(both)

    pipeline._encode_image = encode
    return pipeline


def _varied(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    picture = fx.uniform(request.prompts, 3, PIXELS, PIXELS, seed=5)
    return {**_common(fx, request), "image": picture}


def _unclip(name: str, fx: Framework, **more: Any) -> Any:
    module = "pipelines.stable_diffusion.stable_unclip_image_normalizer"
    normalizer = fx.named("StableUnCLIPImageNormalizer", module)(embedding_dim=TEXT)
    parts: dict[str, Any] = {
        "image_normalizer": fx.fill(normalizer),
        "image_noising_scheduler": fx.scheduler("DDPMScheduler"),
        "unet": _unet(
            fx, 4, class_embed_type="projection", projection_class_embeddings_input_dim=2 * TEXT
        ),
        "scheduler": _scheduler(fx),
        "vae": small_vae(fx, 4),
        **dict.fromkeys(("text_encoder", "tokenizer")),
    }
    return fx.pipeline(name, **parts, **more)


def _unclip_from_image(fx: Framework) -> Any:
    name = "StableUnCLIPImg2ImgPipeline"
    pipeline = _unclip(name, fx, **dict.fromkeys(("feature_extractor", "image_encoder")))

    def encode(image_embeds: Any, num_images_per_prompt: int, **more: Any) -> Any:
        embeds = pipeline.noise_image_embeddings(
            image_embeds, more["noise_level"], generator=more["generator"]
        )
        embeds = np.repeat(fx.backend.ops.to_numpy(embeds), num_images_per_prompt, axis=0)
        guided = more["do_classifier_free_guidance"]
        return fx.tensor(np.concatenate([0 * embeds, embeds]) if guided else embeds)

    pipeline._encode_image = encode
    return pipeline


def _unclip_from_text(fx: Framework) -> Any:
    """Build the pipeline with a prior, which makes the picture's embedding of the prompt's."""
    prior = fx.model(
        "PriorTransformer",
        num_attention_heads=2,
        attention_head_dim=4,
        num_layers=1,
        embedding_dim=TEXT,
        num_embeddings=TOKENS,
        additional_embeddings=4,
    )
    pipeline = _unclip(
        "StableUnCLIPPipeline",
        fx,
        prior=prior,
        prior_scheduler=fx.scheduler("UnCLIPScheduler"),
        **dict.fromkeys(("prior_tokenizer", "prior_text_encoder")),
    )

    def encode(num_images_per_prompt: int, do_classifier_free_guidance: bool, **_: Any) -> Any:
        rows = pipeline.prior_prompts * num_images_per_prompt * (1 + do_classifier_free_guidance)
        mask = fx.tensor(np.ones((rows, TOKENS), bool))
        return fx.normal(rows, TEXT, seed=6), fx.normal(rows, TOKENS, TEXT, seed=7), mask

    pipeline._encode_prior_prompt = encode
    return pipeline


def _unclipped(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    made = {**_text(fx, request), "image_embeds": fx.normal(request.prompts, TEXT, seed=5)}
    return {**made, "height": PIXELS, "width": PIXELS}


def _from_prior(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    pipeline.prior_prompts = request.prompts
    return {**_text(fx, request), "prior_num_inference_steps": 3, "height": PIXELS, "width": PIXELS}


def _edit_xl(fx: Framework) -> Any:
    return fx.pipeline(
        "StableDiffusionXLInstructPix2PixPipeline",
        unet=_unet(fx, 8, **_XL),
        vae=small_vae(fx, 4),
        scheduler=_scheduler(fx),
        add_watermarker=False,
        **dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")),
    )


def _edited_xl(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    picture = fx.uniform(request.prompts, 3, PIXELS, PIXELS, seed=5)
    return {
        **_text(fx, request),
        **_pooled(fx, request),
        "image": picture,
        "image_guidance_scale": 1.5 if request.guided else 1.0,
        "height": PIXELS,
        "width": PIXELS,
    }


_T2I = "StableDiffusionAdapterPipeline"

ENTRIES = [
    Entry(_T2I, partial(_adapter, _T2I, "DDIMScheduler"), _adapted),
    *(
        Entry(
            _T2I,
            partial(_adapter, _T2I, f"{name}Scheduler"),
            _adapted,
            variant=name,
        )
        for name in ("PNDM", "HeunDiscrete")
    ),
    Entry(
        "StableDiffusionXLAdapterPipeline",
        partial(_adapter, "StableDiffusionXLAdapterPipeline", "DDIMScheduler"),
        _adapted_xl,
    ),
    Entry(
        "StableDiffusionLatentUpscalePipeline",
        _latent_upscale,
        _upscaled_latents,
        impossible={"two images per prompt": "the call has no number of pictures per prompt"},
    ),
    Entry("StableDiffusionUpscalePipeline", _upscale, _upscaled),
    Entry("StableDiffusionImageVariationPipeline", _variation, _varied),
    Entry("StableUnCLIPImg2ImgPipeline", _unclip_from_image, _unclipped),
    Entry("StableUnCLIPPipeline", _unclip_from_text, _from_prior),
    Entry(
        "StableDiffusionXLInstructPix2PixPipeline",
        _edit_xl,
        _edited_xl,
    ),
]
