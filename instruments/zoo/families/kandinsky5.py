"""Kandinsky 5 and 6: pictures and videos, two calls of the transformer a step."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from zoo.entry import Entry, Request
from zoo.families.wan import CHANNELS, NEGATIVE, PROMPTS, encoder, flow, picture
from zoo.framework import Framework

PIXELS = 32
FRAMES = 5
LENGTH = 4
TEXT = 8
WIDTH = 24


def _transformer(fx: Framework, **more: Any) -> Any:
    return fx.model(
        "Kandinsky5Transformer3DModel",
        in_visual_dim=CHANNELS,
        out_visual_dim=CHANNELS,
        in_text_dim=TEXT,
        in_text_dim2=TEXT,
        time_dim=16,
        model_dim=WIDTH,
        ff_dim=16,
        num_text_blocks=1,
        num_visual_blocks=1,
        axes_dims=(4, 4, 4),
        **more,
    )


def _video_vae(fx: Framework) -> Any:
    return fx.model(
        "AutoencoderKLHunyuanVideo",
        latent_channels=CHANNELS,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        norm_num_groups=4,
    )


def _picture_vae(fx: Framework) -> Any:
    return fx.model(
        "AutoencoderKL",
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=CHANNELS,
        norm_num_groups=4,
        sample_size=PIXELS,
    )


def _pipeline(fx: Framework, kind: str, vae: Any = None, **transformer: Any) -> Any:
    made = fx.pipeline(
        kind,
        transformer=_transformer(fx, **transformer),
        vae=vae,
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=None,
        tokenizer_2=None,
        scheduler=flow(fx),
    )
    tokens = encoder(fx, LENGTH, TEXT)

    def encode_tokens(prompt: list[str], *_: Any, **__: Any) -> tuple[Any, Any]:
        ends = [LENGTH * i for i in range(len(prompt) + 1)]
        return tokens(prompt), fx.tensor(ends, "int32")

    made._encode_prompt_qwen = encode_tokens
    made._encode_prompt_clip = _pooled(fx)
    if hasattr(made, "resolutions"):
        made.resolutions = [(PIXELS, PIXELS)]
    return made


def _pooled(fx: Framework) -> Callable[..., Any]:
    encode = encoder(fx, 1, TEXT)

    def encode_whole(prompt: list[str], *_: Any, **__: Any) -> Any:
        return encode(prompt)[:, 0]

    return encode_whole


def _common(
    fx: Framework, pipeline: Any, request: Request, each: str = "num_images_per_prompt"
) -> dict[str, Any]:
    return {
        "prompt": PROMPTS[: request.prompts],
        "negative_prompt": [NEGATIVE] * request.prompts,
        each: request.images,
        "num_inference_steps": request.steps,
        "guidance_scale": 5.0 if request.guided else 1.0,
        "height": PIXELS,
        "width": PIXELS,
        "generator": fx.generator(),
        "output_type": "latent",
    }


def _video(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {**_common(fx, pipeline, request, "num_videos_per_prompt"), "num_frames": FRAMES}


def _from_image(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    # After its loop, the first four latent frames get the mean and deviation of those that follow.
    return {**_video(fx, pipeline, request), "num_frames": 21, "image": picture(PIXELS)}


def _edited(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    images = [picture(PIXELS, seed=i) for i in range(request.rows)]
    return {**_common(fx, pipeline, request), "image": images}


def _kandinsky6(fx: Framework) -> Any:
    transformer = fx.model(
        "Kandinsky6Transformer3DModel",
        in_visual_dim=CHANNELS,
        out_visual_dim=CHANNELS,
        in_audio_dim=CHANNELS,
        out_audio_dim=CHANNELS,
        in_text_dim=TEXT,
        in_text_dim2=TEXT,
        time_dim=16,
        model_dim=WIDTH,
        ff_dim=16,
        num_text_blocks=1,
        num_visual_blocks=1,
        axes_dims=(4, 4, 4),
        visual_token_type_num_embeddings=2,
    )
    audio_vae = fx.model(
        "MMAudioVAE",
        mel_bins=8,
        latent_channels=CHANNELS,
        hidden_channels=8,
        layers_per_block=1,
        sample_rate=96,
        n_fft=16,
        hop_length=4,
    )
    vocoder = fx.model(
        "MMAudioVocoder",
        num_mels=8,
        upsample_initial_channel=16,
        upsample_rates=(2, 2),
        upsample_kernel_sizes=(4, 4),
        resblock_kernel_sizes=(3,),
        resblock_dilation_sizes=((1,),),
    )
    made = fx.pipeline(
        "Kandinsky6TI2VAPipeline",
        transformer=transformer,
        vae=_video_vae(fx),
        audio_vae=audio_vae,
        vocoder=vocoder,
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=None,
        tokenizer_2=None,
        scheduler=flow(fx),
    )
    tokens, whole = encoder(fx, LENGTH, TEXT), _pooled(fx)
    made._get_prompt_embeds = lambda prompt, *_: (tokens(prompt), whole(prompt), None)
    return made


def _heard(
    fx: Framework, pipeline: Any, request: Request, image: bool = False, sample_audio: bool = True
) -> dict[str, Any]:
    given = {**_video(fx, pipeline, request), "sample_audio": sample_audio}
    if image:
        given["image"] = [picture(PIXELS, seed=i) for i in range(request.prompts)]
    return given


_TORCH: dict[str, Any] = {"frameworks": ("torch",)}

ENTRIES = [
    Entry(
        "Kandinsky5T2VPipeline",
        lambda fx: _pipeline(fx, "Kandinsky5T2VPipeline", _video_vae(fx)),
        _video,
    ),
    Entry(
        "Kandinsky5T2IPipeline",
        partial(_pipeline, kind="Kandinsky5T2IPipeline"),
        _common,
        **_TORCH,
    ),
    Entry(
        "Kandinsky5I2VPipeline",
        lambda fx: _pipeline(fx, "Kandinsky5I2VPipeline", _video_vae(fx), visual_cond=True),
        _from_image,
        **_TORCH,
    ),
    Entry(
        "Kandinsky5I2IPipeline",
        lambda fx: _pipeline(fx, "Kandinsky5I2IPipeline", _picture_vae(fx), visual_cond=True),
        _edited,
        **_TORCH,
    ),
    Entry("Kandinsky6TI2VAPipeline", _kandinsky6, _heard, **_TORCH),
    Entry(
        "Kandinsky6TI2VAPipeline",
        _kandinsky6,
        partial(_heard, image=True, sample_audio=False),
        variant="from an image, silent",
        **_TORCH,
    ),
]
