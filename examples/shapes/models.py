"""The networks of the shapes model, untrained, and its noise schedule."""

from __future__ import annotations

from diffusers import AutoencoderKL, AutoencoderTiny, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

LATENT_CHANNELS = 4
SPATIAL_SCALE = 4
"""Picture pixels per latent cell."""
WIDTH = 64
"""Width of the text embeddings."""
TINY_WIDTH = 16
"""Channels everywhere inside the tiny autoencoder."""


def build_vae() -> AutoencoderKL:
    """Build the model from pictures (N, 3, 64, 64) in [-1, 1] to latents (N, 4, 16, 16) and
    back."""
    return AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 3,
        up_block_types=["UpDecoderBlock2D"] * 3,
        block_out_channels=(16, 32, 48),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=64,
        mid_block_add_attention=False,
    )


def build_tiny_vae() -> AutoencoderTiny:
    """Build a small autoencoder like that of `build_vae`; its latents are scaled as the UNet sees
    them."""
    return AutoencoderTiny(
        encoder_block_out_channels=(TINY_WIDTH,) * 3,
        decoder_block_out_channels=(TINY_WIDTH,) * 3,
        num_encoder_blocks=(1, 2, 2),
        num_decoder_blocks=(3, 3, 0),
        latent_channels=LATENT_CHANNELS,
    )


def build_unet() -> UNet2DConditionModel:
    """Build the model from noisy latents (N, 4, 16, 16), times and text embeddings to the noise in
    them."""
    return UNet2DConditionModel(
        sample_size=64 // SPATIAL_SCALE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        # What a picture shows is settled at 8 x 8. Attention at 16 x 16 too would double the time.
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(48, 80),
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Build the model from token numbers (N, length) to embeddings (N, length, 64)."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=tokenizer.model_max_length,
        projection_dim=WIDTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def build_scheduler() -> DDIMScheduler:
    """Build Stable Diffusion's own noise schedule, on which callbacks are usually tuned."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
