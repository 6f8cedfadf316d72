"""Audio pipelines."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from zoo.entry import Entry, Request
from zoo.framework import Framework

TEXT = 8
CHANNELS = 4
FRAMES = 8
TORCH = ("torch",)


def _common(fx: Framework, request: Request) -> dict[str, Any]:
    return {
        "num_inference_steps": request.steps,
        "guidance_scale": 5.0 if request.guided else 1.0,
        "generator": fx.generator(),
        "output_type": "latent",
    }


def _words(request: Request) -> list[str]:
    return [f"sound {i}" for i in range(request.prompts)]


def _ones(fx: Framework, *shape: int, hidden: int = 0, dtype: str = "int64") -> Any:
    """Return a mask that hides the last ``hidden`` tokens of the first row."""
    array = np.ones(shape)
    if hidden:
        array[0, shape[1] - hidden :] = 0
    return fx.tensor(array, dtype)


# ACE-Step


def _acestep(fx: Framework) -> Any:
    shared = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "sliding_window": 4,
    }
    transformer = fx.model(
        "AceStepTransformer1DModel",
        num_hidden_layers=1,
        in_channels=3 * CHANNELS,
        audio_acoustic_hidden_dim=CHANNELS,
        encoder_hidden_size=16,
        **shared,
    )
    encoder = fx.model(
        "AceStepConditionEncoder",
        text_hidden_dim=TEXT,
        timbre_hidden_dim=CHANNELS,
        num_lyric_encoder_hidden_layers=1,
        num_timbre_encoder_hidden_layers=1,
        **shared,
    )
    pipeline = fx.pipeline(
        "AceStepPipeline",
        transformer=transformer,
        condition_encoder=encoder,
        scheduler=fx.scheduler("FlowMatchEulerDiscreteScheduler", num_train_timesteps=1),
        vae=None,
        text_encoder=None,
        tokenizer=None,
    )
    pipeline.latents_per_second = 1.0

    def encoded(prompt: list[str], **_: Any) -> tuple[Any, ...]:
        rows = len(prompt)
        return (
            fx.normal(rows, 4, TEXT),
            _ones(fx, rows, 4, dtype="bool"),
            fx.normal(rows, 3, TEXT, seed=2),
            _ones(fx, rows, 3, hidden=1, dtype="bool"),
        )

    pipeline.encode_prompt = encoded
    return pipeline


def _acestep_arguments(
    fx: Framework, pipeline: Any, request: Request, **more: Any
) -> dict[str, Any]:
    return {
        **_common(fx, request),
        "prompt": _words(request),
        "lyrics": ["la"] * request.prompts,
        "audio_duration": FRAMES,
        **more,
    }


# LongCat


def _longcat(fx: Framework) -> Any:
    transformer = fx.model(
        "LongCatAudioDiTTransformer",
        dit_dim=16,
        dit_depth=1,
        dit_heads=2,
        dit_text_dim=TEXT,
        latent_dim=CHANNELS,
        ff_mult=1.0,
    )
    vae = fx.model(
        "LongCatAudioDiTVae",
        channels=4,
        c_mults=[1, 1],
        strides=[2],
        latent_dim=CHANNELS,
        encoder_latent_dim=2 * CHANNELS,
        downsampling_ratio=2,
        sample_rate=8,
    )
    pipeline = fx.pipeline(
        "LongCatAudioDiTPipeline",
        transformer=transformer,
        vae=vae,
        scheduler=fx.scheduler("FlowMatchEulerDiscreteScheduler", shift=1.0, invert_sigmas=True),
        text_encoder=None,
        tokenizer=None,
    )

    def encoded(prompt: list[str], device: Any) -> tuple[Any, Any]:
        rows = len(prompt)
        negative = prompt[0] == "noise"
        lengths = [4 - negative, *[4] * (rows - 1)]
        return fx.normal(rows, 4, TEXT, seed=2 if negative else 1), fx.tensor(lengths, "int64")

    pipeline.encode_prompt = encoded
    return pipeline


def _longcat_arguments(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {
        **_common(fx, request),
        "prompt": _words(request),
        "negative_prompt": ["noise"] * request.prompts,
        "audio_duration_s": 2.0,
    }


# Stable Audio 3


def _stable_audio(fx: Framework, name: str, stochastic: bool = False) -> Any:
    transformer = fx.model(
        "StableAudio3DiTModel",
        io_channels=CHANNELS,
        embed_dim=16,
        depth=1,
        num_heads=2,
        cond_token_dim=TEXT,
        global_cond_dim=TEXT,
        local_add_cond_dim=CHANNELS + 1,
        timestep_features_dim=8,
        ff_mult=1.0,
        num_memory_tokens=2,
    )
    vae = fx.model(
        "AutoencoderSAME",
        patch_size=2,
        encoder_channels=8,
        encoder_c_mults=(1,),
        encoder_strides=(2,),
        encoder_transformer_depths=(1,),
        latent_dim=CHANNELS,
        dim_heads=4,
        ff_mult=1,
        sampling_rate=16,
    )
    return fx.pipeline(
        name,
        transformer=transformer,
        duration_embedder=fx.model("StableAudio3DurationEmbedder", output_dim=TEXT, fourier_dim=8),
        vae=vae,
        scheduler=fx.scheduler("FlowMatchEulerDiscreteScheduler", stochastic_sampling=stochastic),
        text_encoder=None,
        tokenizer=None,
    )


def _stable_audio_arguments(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    rows, length = request.prompts, 2 * request.rows
    return {
        **_common(fx, request),
        "prompt_embeds": fx.normal(rows, length, TEXT),
        "negative_prompt_embeds": fx.normal(rows, length, TEXT, seed=2),
        "encoder_attention_mask": _ones(fx, rows, length),
        "negative_encoder_attention_mask": _ones(fx, rows, length, hidden=1),
        "num_waveforms_per_prompt": request.images,
        "duration": 2.0,
    }


def _reference_arguments(
    fx: Framework, pipeline: Any, request: Request, **more: Any
) -> dict[str, Any]:
    """Make the arguments of the pipelines that start from a sound, which have no guidance."""
    arguments = _stable_audio_arguments(fx, pipeline, request)
    kept = {name: value for name, value in arguments.items() if "negative" not in name}
    del kept["guidance_scale"]
    return {**kept, "audio": fx.normal(request.prompts, 2, 32, seed=3), **more}


_ONE_SOUND = {"two images per prompt": "the call has no number of sounds per prompt"}

ENTRIES = [
    Entry("AceStepPipeline", _acestep, _acestep_arguments, impossible=_ONE_SOUND, frameworks=TORCH),
    Entry(
        "AceStepPipeline",
        _acestep,
        partial(_acestep_arguments, cfg_interval_end=0.3),
        impossible=_ONE_SOUND,
        variant="guidance in an interval",
        saves_less="the pipeline itself leaves steps without guidance",
        frameworks=TORCH,
    ),
    Entry(
        "AceStepPipeline",
        _acestep,
        partial(_acestep_arguments, task_type="cover", audio_cover_strength=0.5),
        impossible=_ONE_SOUND,
        variant="cover",
        saves_less="the pipeline itself leaves steps without guidance",
        frameworks=TORCH,
    ),
    Entry(
        "LongCatAudioDiTPipeline",
        _longcat,
        _longcat_arguments,
        impossible=_ONE_SOUND,
        frameworks=TORCH,
    ),
    Entry(
        "StableAudio3Pipeline",
        partial(_stable_audio, name="StableAudio3Pipeline"),
        _stable_audio_arguments,
        frameworks=TORCH,
    ),
    Entry(
        "StableAudio3Pipeline",
        partial(_stable_audio, name="StableAudio3Pipeline", stochastic=True),
        _stable_audio_arguments,
        variant="stochastic",
        frameworks=TORCH,
    ),
    Entry(
        "StableAudio3AudioToAudioPipeline",
        partial(_stable_audio, name="StableAudio3AudioToAudioPipeline"),
        _reference_arguments,
        frameworks=TORCH,
    ),
    Entry(
        "StableAudio3InpaintPipeline",
        partial(_stable_audio, name="StableAudio3InpaintPipeline"),
        partial(_reference_arguments, mask_start_seconds=0.5, mask_end_seconds=1.0),
        frameworks=TORCH,
    ),
]
