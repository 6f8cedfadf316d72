"""Deprecated classes whose latents are tokens, or whose models know no prompt."""

from __future__ import annotations

from typing import Any

from zoo.entry import Entry, Request
from zoo.families.diffusion_transformers import small_vae
from zoo.families.unconditional import _unet
from zoo.framework import Framework
from zoo.words import TEXT, TOKENS, Encoder, Tokenizer

CELLS = 8
CODES = 16
_NO_NUMBER = {"two images per prompt": "the call has no number of pictures per prompt"}


def _codes(fx: Framework, **more: Any) -> Any:
    return fx.model(
        "VQModel",
        block_out_channels=(4, 4),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        num_vq_embeddings=CODES,
        norm_num_groups=2,
        **more,
    )


# Amused


def _amused(fx: Framework) -> Any:
    transformer = fx.model(
        "UVit2DModel",
        hidden_size=8,
        cond_embed_dim=TEXT,
        micro_cond_encode_dim=4,
        micro_cond_embed_dim=20,
        encoder_hidden_size=TEXT,
        vocab_size=CODES + 1,
        codebook_size=CODES,
        in_channels=8,
        block_out_channels=8,
        num_res_blocks=1,
        block_num_heads=1,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        sample_size=CELLS,
    )
    return fx.pipeline(
        "AmusedPipeline",
        vqvae=_codes(fx),
        tokenizer=None,
        text_encoder=None,
        transformer=transformer,
        scheduler=fx.scheduler("AmusedScheduler", mask_token_id=CODES),
    )


def _masked(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    rows = request.prompts
    return {
        "prompt_embeds": fx.normal(rows, TEXT),
        "encoder_hidden_states": 20 * fx.normal(rows, TOKENS, TEXT, seed=2),
        "negative_prompt_embeds": fx.normal(rows, TEXT, seed=3),
        "negative_encoder_hidden_states": 20 * fx.normal(rows, TOKENS, TEXT, seed=4),
        "num_images_per_prompt": request.images,
        "num_inference_steps": request.steps,
        "guidance_scale": 9.0 if request.guided else 1.0,
        # mindone's other pipelines take numpy's; this one's scheduler draws by the framework.
        "generator": fx.own_generator(),
        "output_type": "latent",
    }


# VQ Diffusion


def _vq(fx: Framework) -> Any:
    module = "pipelines.deprecated.vq_diffusion.pipeline_vq_diffusion"
    learned = fx.named("LearnedClassifierFreeSamplingEmbeddings", module)
    transformer = fx.model(
        "Transformer2DModel",
        num_attention_heads=2,
        attention_head_dim=4,
        num_vector_embeds=CODES + 1,
        sample_size=CELLS,
        cross_attention_dim=TEXT,
        norm_num_groups=4,
        norm_type="ada_norm",
        num_embeds_ada_norm=100,
        attention_bias=True,
        activation_fn="geglu-approximate",
    )
    return fx.pipeline(
        "VQDiffusionPipeline",
        vqvae=_codes(fx, vq_embed_dim=4),
        text_encoder=Encoder(fx),
        tokenizer=Tokenizer(fx),
        transformer=transformer,
        scheduler=fx.scheduler("VQDiffusionScheduler", num_vec_classes=CODES + 1),
        learned_classifier_free_sampling_embeddings=learned(learnable=False),
    )


def _quantized(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {
        "prompt": ["a picture"] * request.prompts,
        "num_images_per_prompt": request.images,
        "num_inference_steps": request.steps,
        "guidance_scale": 50.0 if request.guided else 1.0,
        "generator": fx.generator(),
        "output_type": "np",
    }


# Without a prompt


def _latent(fx: Framework) -> Any:
    return fx.pipeline(
        "LDMPipeline",
        vqvae=small_vae(fx, 3),
        unet=_unet(fx, 3, 3),
        scheduler=fx.scheduler("DDIMScheduler", clip_sample=False),
    )


def _pixels(fx: Framework) -> Any:
    return fx.pipeline(
        "PNDMPipeline", unet=_unet(fx, 3, 3), scheduler=fx.scheduler("PNDMScheduler")
    )


def _drawn(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {
        "batch_size": request.prompts,
        "num_inference_steps": request.steps,
        "generator": fx.generator(),
        "output_type": "np",
    }


_TORCH = ("torch",)

ENTRIES = [
    Entry("AmusedPipeline", _amused, _masked),
    Entry("VQDiffusionPipeline", _vq, _quantized, frameworks=_TORCH),
    Entry("LDMPipeline", _latent, _drawn, _NO_NUMBER, frameworks=_TORCH),
    Entry("PNDMPipeline", _pixels, _drawn, _NO_NUMBER, frameworks=_TORCH, returns="pt"),
]
