"""Stable Audio and AudioLDM 2, whose loops call no callback."""

from __future__ import annotations

from typing import Any

import numpy as np

from zoo.entry import Entry, Request
from zoo.framework import Framework

TEXT = 8
TOKENS = 4
LENGTH = 16


class _Part:
    """Stand for a model that is asked for its configuration only."""

    def __init__(self, **has: Any) -> None:
        vars(self).update(has)


def _stable(fx: Framework) -> Any:
    module = "pipelines.stable_audio.modeling_stable_audio"
    projection = fx.named("StableAudioProjectionModel", module)
    return fx.pipeline(
        "StableAudioPipeline",
        vae=fx.model(
            "AutoencoderOobleck",
            encoder_hidden_size=4,
            downsampling_ratios=[2, 2],
            channel_multiples=[1, 2],
            decoder_channels=4,
            decoder_input_channels=4,
        ),
        text_encoder=None,
        tokenizer=None,
        projection_model=fx.fill(
            projection(text_encoder_dim=TEXT, conditioning_dim=TEXT, min_value=0, max_value=1)
        ),
        transformer=fx.model(
            "StableAudioDiTModel",
            sample_size=LENGTH,
            in_channels=4,
            out_channels=4,
            num_layers=1,
            attention_head_dim=8,
            num_attention_heads=2,
            num_key_value_attention_heads=1,
            cross_attention_dim=TEXT,
            cross_attention_input_dim=TEXT,
            time_proj_dim=8,
            global_states_input_dim=2 * TEXT,
        ),
        scheduler=fx.scheduler("EDMDPMSolverMultistepScheduler", solver_order=2),
    )


def _common(fx: Framework, request: Request) -> dict[str, Any]:
    return {
        "prompt_embeds": fx.normal(request.prompts, TOKENS, TEXT),
        "negative_prompt_embeds": fx.normal(request.prompts, TOKENS, TEXT, seed=2),
        "num_waveforms_per_prompt": request.images,
        "num_inference_steps": request.steps,
        "guidance_scale": 15.0 if request.guided else 1.0,
        "generator": fx.generator(),
        "output_type": "latent",
    }


def _sounds(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    mask = fx.tensor(np.ones((request.prompts, TOKENS)), "int64")
    return {
        **_common(fx, request),
        "attention_mask": mask,
        "negative_attention_mask": mask,
        "audio_end_in_s": 1e-3,
    }


def _ldm2(fx: Framework) -> Any:
    unet = fx.model(
        "AudioLDM2UNet2DConditionModel",
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        # Of each block: attention to itself, to generated embeddings, and to the prompt.
        cross_attention_dim=((None, TEXT, 2 * TEXT),) * 2,
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
    config = _Part(model_in_dim=8, upsample_rates=[2, 2], sampling_rate=1000)
    pipeline = fx.pipeline(
        "AudioLDM2Pipeline",
        unet=unet,
        vae=vae,
        vocoder=_Part(config=config),
        language_model=None,
        text_encoder_2=_Part(config=_Part(model_type="t5")),
        scheduler=fx.scheduler("DDIMScheduler", clip_sample=False, beta_end=0.004),
        **dict.fromkeys(("text_encoder", "projection_model", "tokenizer")),
        **dict.fromkeys(("tokenizer_2", "feature_extractor")),
    )

    def encode(prompt: list[str], *others: Any, **_: Any) -> Any:
        images, guided = others[-4], others[-3]
        rows = len(prompt) * images * (2 if guided else 1)

        def numbers(seed: int, *shape: int) -> Any:
            both = np.random.default_rng(seed).normal(size=(2, len(prompt), *shape))
            return fx.tensor(np.repeat(both, images, axis=1).reshape(-1, *shape)[-rows:])

        mask = fx.tensor(np.ones((rows, TOKENS)), "int64")
        return numbers(1, TOKENS, 2 * TEXT), mask, numbers(2, TOKENS, TEXT)

    pipeline.encode_prompt = encode
    return pipeline


def _spoken(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    made = _common(fx, request)
    del made["prompt_embeds"], made["negative_prompt_embeds"]
    return {**made, "prompt": ["a sound"] * request.prompts, "audio_length_in_s": 0.064}


ENTRIES = [
    Entry("StableAudioPipeline", _stable, _sounds),
    # mindone's cannot be imported without librosa, whose job in it is to judge several sounds.
    Entry("AudioLDM2Pipeline", _ldm2, _spoken, frameworks=("torch",)),
]
