"""Deprecated classes that make sound; their loops call no callback."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from zoo.entry import Entry, Request
from zoo.framework import Framework
from zoo.words import TEXT, Part


class _Encoder(Part):
    """Stand for a text encoder that is asked for its precision."""

    def __init__(self, fx: Framework) -> None:
        super().__init__(dtype=fx.tensor(np.zeros(1)).dtype)
        self.text_model = self


def _voice(fx: Framework) -> Any:
    from transformers import SpeechT5HifiGanConfig

    config = SpeechT5HifiGanConfig(
        model_in_dim=8,
        sampling_rate=1000,
        upsample_initial_channel=4,
        upsample_rates=[2, 2],
        upsample_kernel_sizes=[4, 4],
        resblock_kernel_sizes=[3, 3],
        resblock_dilation_sizes=[[1, 3], [1, 3]],
        normalize_before=False,
    )
    return fx.text_model("SpeechT5HifiGan", config)


def _spectra(name: str, fx: Framework) -> Any:
    unet = fx.model(
        "UNet2DConditionModel",
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=(8, 16),
        class_embed_type="simple_projection",
        projection_class_embeddings_input_dim=TEXT,
        class_embeddings_concat=True,
        attention_head_dim=4,
    )
    vae = fx.model(
        "AutoencoderKL",
        in_channels=1,
        out_channels=1,
        block_out_channels=(4, 4),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=2,
    )
    return fx.pipeline(
        name,
        vae=vae,
        text_encoder=_Encoder(fx),
        unet=unet,
        vocoder=_voice(fx),
        scheduler=fx.scheduler("DDIMScheduler", clip_sample=False, beta_end=0.004),
        **dict.fromkeys(("tokenizer", "feature_extractor")),
    )


def _sung(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {
        "prompt_embeds": 20 * fx.normal(request.prompts, TEXT),
        "negative_prompt_embeds": 20 * fx.normal(request.prompts, TEXT, seed=2),
        "num_waveforms_per_prompt": request.images,
        "num_inference_steps": request.steps,
        "guidance_scale": 9.0 if request.guided else 1.0,
        "generator": fx.generator(),
        "audio_length_in_s": 0.064,
    }


def _dance(fx: Framework) -> Any:
    unet = fx.model(
        "UNet1DModel",
        sample_size=32,
        sample_rate=1000,
        # A head has 32 channels, and what it adds for the time has twice the first of these.
        block_out_channels=(8, 32, 32),
        extra_in_channels=16,
        in_channels=2,
        out_channels=2,
        flip_sin_to_cos=True,
        use_timestep_embedding=False,
        time_embedding_type="fourier",
        mid_block_type="UNetMidBlock1D",
        down_block_types=("DownBlock1DNoSkip", "DownBlock1D", "AttnDownBlock1D"),
        up_block_types=("AttnUpBlock1D", "UpBlock1D", "UpBlock1DNoSkip"),
    )
    return fx.pipeline(
        "DanceDiffusionPipeline", unet=unet, scheduler=fx.scheduler("IPNDMScheduler")
    )


def _danced(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {
        "batch_size": request.prompts,
        "num_inference_steps": request.steps,
        "generator": fx.generator(),
    }


ENTRIES = [
    Entry("AudioLDMPipeline", partial(_spectra, "AudioLDMPipeline"), _sung),
    # mindone's cannot be imported without librosa.
    Entry("MusicLDMPipeline", partial(_spectra, "MusicLDMPipeline"), _sung, frameworks=("torch",)),
    Entry(
        "DanceDiffusionPipeline",
        _dance,
        _danced,
        {"two images per prompt": "the call has no number of sounds per prompt"},
    ),
]
