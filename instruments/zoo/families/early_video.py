"""Stable Video Diffusion, Latte, Allegro."""

from __future__ import annotations

from typing import Any

import numpy as np

from zoo.entry import Entry, Request
from zoo.framework import Framework

PIXELS = 16
WIDTH = 8
TOKENS = 4
#: As many as prompts in the case of two prompts.
FRAMES = 2


def _common(fx: Framework, request: Request) -> dict[str, Any]:
    return {
        "num_inference_steps": request.steps,
        "height": PIXELS,
        "width": PIXELS,
        "generator": fx.generator(),
        "output_type": "latent",
    }


def _texts(fx: Framework, request: Request) -> dict[str, Any]:
    return {
        "guidance_scale": 5.0 if request.guided else 1.0,
        "negative_prompt": None,
        # Large, so that weights this small let guidance show.
        "prompt_embeds": 20 * fx.normal(request.prompts, TOKENS, WIDTH),
        "negative_prompt_embeds": 20 * fx.normal(request.prompts, TOKENS, WIDTH, seed=2),
    }


def _scheduler(fx: Framework) -> Any:
    # Little noise, so that the last steps, which a cut changes, weigh as much as the first.
    return fx.scheduler("DDIMScheduler", steps_offset=1, beta_end=0.004, clip_sample=False)


def _vae(fx: Framework) -> Any:
    return fx.model(
        "AutoencoderKL",
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=PIXELS,
    )


def _stable_video(fx: Framework) -> Any:
    unet = fx.model(
        "UNetSpatioTemporalConditionModel",
        sample_size=PIXELS // 2,
        in_channels=8,
        out_channels=4,
        # The models' norms are of 32 groups.
        block_out_channels=(32, 32),
        layers_per_block=1,
        down_block_types=("DownBlockSpatioTemporal", "CrossAttnDownBlockSpatioTemporal"),
        up_block_types=("CrossAttnUpBlockSpatioTemporal", "UpBlockSpatioTemporal"),
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=12,
        cross_attention_dim=WIDTH,
        num_attention_heads=2,
        num_frames=FRAMES,
    )
    pipeline = fx.pipeline(
        "StableVideoDiffusionPipeline",
        unet=unet,
        vae=_vae(fx),
        scheduler=fx.scheduler("EulerDiscreteScheduler", prediction_type="v_prediction"),
        image_encoder=None,
        feature_extractor=None,
    )

    def encode(image: Any, *others: Any) -> Any:
        # Left out of the arguments, if the port calls without a device, is the first of these.
        videos, guided = others[-2:]
        rows = int(image.shape[0]) * videos
        embeds = np.random.default_rng(1).normal(size=(rows, 1, WIDTH))
        return fx.tensor(np.concatenate([0 * embeds, embeds]) if guided else embeds)

    pipeline._encode_image = encode
    return pipeline


def _pictured(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {
        **_common(fx, request),
        "image": fx.uniform(request.prompts, 3, PIXELS, PIXELS),
        "num_videos_per_prompt": request.images,
        "max_guidance_scale": 5.0 if request.guided else 1.0,
        "num_frames": FRAMES,
    }


def _latte(fx: Framework) -> Any:
    transformer = fx.model(
        "LatteTransformer3DModel",
        num_attention_heads=2,
        attention_head_dim=4,
        in_channels=4,
        out_channels=8,
        num_layers=1,
        cross_attention_dim=8,
        sample_size=4,
        patch_size=2,
        activation_fn="gelu-approximate",
        attention_bias=True,
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        caption_channels=WIDTH,
        video_length=FRAMES,
    )
    return fx.pipeline(
        "LattePipeline",
        transformer=transformer,
        vae=_vae(fx),
        scheduler=_scheduler(fx),
        text_encoder=None,
        tokenizer=None,
    )


def _latte_arguments(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {
        **_common(fx, request),
        **_texts(fx, request),
        "num_images_per_prompt": request.images,
        "video_length": FRAMES,
    }


def _masks_fit(fx: Framework, model: Any) -> Any:
    """Return ``model``; in the port, with the attention that takes masks without an accelerator
    too."""
    if fx.name == "mindspore":
        from mindone.diffusers.models.attention_processor import AttnProcessor

        class Unrotated(AttnProcessor):  # type: ignore[misc]
            def __call__(self, *args: Any, image_rotary_emb: None = None, **others: Any) -> Any:
                return super().__call__(*args, **others)

        for block in model.transformer_blocks:
            block.attn2.set_processor(Unrotated())
    return model


def _allegro(fx: Framework) -> Any:
    transformer = fx.model(
        "AllegroTransformer3DModel",
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        cross_attention_dim=24,
        sample_height=PIXELS // 8,
        sample_width=PIXELS // 8,
        sample_frames=FRAMES,
        caption_channels=WIDTH,
    )
    return fx.pipeline(
        "AllegroPipeline",
        transformer=_masks_fit(fx, transformer),
        vae=None,
        scheduler=_scheduler(fx),
        text_encoder=None,
        tokenizer=None,
    )


def _allegro_arguments(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    rows = request.prompts
    mask = np.ones((rows, TOKENS))
    mask[:, -1] = 0
    return {
        **_common(fx, request),
        **_texts(fx, request),
        "prompt_attention_mask": fx.tensor(mask),
        "negative_prompt_attention_mask": fx.tensor(np.ones((rows, TOKENS))),
        # Without an autoencoder, the size of the latents is these over 8 and 4.
        "height": 32,
        "width": 32,
        "num_frames": 4 * FRAMES,
        "num_videos_per_prompt": request.images,
    }


ENTRIES = [
    Entry("StableVideoDiffusionPipeline", _stable_video, _pictured),
    Entry("LattePipeline", _latte, _latte_arguments),
    Entry(
        "AllegroPipeline",
        _allegro,
        _allegro_arguments,
        {"two images per prompt": "num_videos_per_prompt is set to 1, whatever is asked for"},
    ),
]
