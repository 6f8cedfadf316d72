"""CogVideoX and ConsisID (videos), CogView3+ and CogView4 (pictures)."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from zoo.entry import Entry, Request
from zoo.framework import Framework

#: The VAE's scale is 8 and the patches are of 2: one token a frame, four a picture.
VIDEO_PIXELS, PIXELS = 16, 32
TEXT, TOKENS = 8, 4
CHANNELS = 4

_ONE_VIDEO = {"two images per prompt": "the loop sets num_videos_per_prompt to 1"}


def _texts(kind: str, request: Request) -> list[str]:
    return [f"{kind} {i}" for i in range(request.prompts)]


def _embeddings(fx: Framework, texts: list[str], images: int = 1) -> Any:
    """Embed each text by the same numbers every time, ``images`` times."""
    rows = [np.random.default_rng(sum(text.encode())).normal(size=(TOKENS, TEXT)) for text in texts]
    return fx.tensor(np.repeat(np.stack(rows), images, axis=0))


def _encoder(fx: Framework) -> Callable[..., Any]:
    """Make what stands in for a text encoder."""

    def encode(prompt: list[str], num_images_per_prompt: int = 1, **_: Any) -> Any:
        return _embeddings(fx, prompt, num_images_per_prompt)

    return encode


# --------------------------------------------------------------------------- CogVideoX, ConsisID


def _latent_frames(request: Request) -> int:
    """Return as many frames as the doubled batch has rows: of one token each, so that the rotary
    tables have as many rows as that."""
    return 2 * request.rows


def _num_frames(request: Request) -> int:
    return 4 * (_latent_frames(request) - 1) + 1


_VIDEO_MODEL = {
    "out_channels": CHANNELS,
    "time_embed_dim": 8,
    "text_embed_dim": TEXT,
    "num_layers": 1,
    "sample_width": VIDEO_PIXELS // 8,
    "sample_height": VIDEO_PIXELS // 8,
    "max_text_seq_length": TOKENS,
    "use_rotary_positional_embeddings": True,
}


def _transformer(fx: Framework, in_channels: int, **more: Any) -> Any:
    return fx.model(
        "CogVideoXTransformer3DModel",
        num_attention_heads=1,
        attention_head_dim=16,
        in_channels=in_channels,
        **{**_VIDEO_MODEL, **more},
    )


def _video_vae(fx: Framework) -> Any:
    return fx.model(
        "AutoencoderKLCogVideoX",
        block_out_channels=(4,) * 4,
        latent_channels=CHANNELS,
        layers_per_block=1,
        norm_num_groups=2,
    )


def _video(
    name: str,
    *,
    wide: bool = False,
    vae: bool = False,
    scheduler: str = "CogVideoXDDIMScheduler",
    **model: Any,
) -> Callable[[Framework], Any]:
    def build(fx: Framework) -> Any:
        pipeline = fx.pipeline(
            name,
            tokenizer=None,
            text_encoder=None,
            vae=_video_vae(fx) if vae else None,
            transformer=_transformer(fx, CHANNELS * (1 + wide), **model),
            scheduler=fx.scheduler(scheduler),
        )
        pipeline._get_t5_prompt_embeds = _encoder(fx)
        return pipeline

    return build


def _consisid(fx: Framework) -> Any:
    transformer = fx.model(
        "ConsisIDTransformer3DModel",
        num_attention_heads=3,
        attention_head_dim=16,
        in_channels=2 * CHANNELS,
        **_VIDEO_MODEL,
        is_train_face=True,
        cross_attn_interval=1,
        cross_attn_dim_head=4,
        cross_attn_num_heads=2,
        LFE_id_dim=8,
        LFE_vit_dim=8,
        LFE_depth=2,
        LFE_dim_head=4,
        LFE_num_heads=2,
        LFE_num_id_token=2,
        LFE_num_querie=4,
        LFE_output_dim=32,  # two thirds of the inner width
        LFE_ff_mult=2,
        LFE_num_scale=2,
    )
    # The library hides the class where OpenCV is missing, which only its key points need.
    where = f"{fx.library.__name__}.pipelines.consisid.pipeline_consisid"
    pipeline = importlib.import_module(where).ConsisIDPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=_video_vae(fx),
        transformer=transformer,
        scheduler=fx.scheduler("CogVideoXDDIMScheduler"),
    )
    pipeline.set_progress_bar_config(disable=True)
    pipeline._get_t5_prompt_embeds = _encoder(fx)
    return pipeline


def _common(fx: Framework, request: Request) -> dict[str, Any]:
    return {
        "prompt": _texts("prompt", request),
        "negative_prompt": _texts("negative", request),
        "height": VIDEO_PIXELS,
        "width": VIDEO_PIXELS,
        "num_inference_steps": request.steps,
        "guidance_scale": 20.0 if request.guided else 1.0,
        "generator": fx.generator(),
        "output_type": "latent",
    }


def _text2video(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {**_common(fx, request), "num_frames": _num_frames(request)}


def _dynamic(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {**_text2video(fx, pipeline, request), "use_dynamic_cfg": True}


def _image2video(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    image = fx.uniform(request.prompts, 3, VIDEO_PIXELS, VIDEO_PIXELS)
    return {**_text2video(fx, pipeline, request), "image": image}


def _faces(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {
        **_image2video(fx, pipeline, request),
        "id_cond": fx.normal(1, 8, seed=3),
        "id_vit_hidden": [fx.normal(1, 4, 8, seed=4), fx.normal(1, 4, 8, seed=5)],
    }


def _video2video(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    side = VIDEO_PIXELS // 8
    latents = fx.normal(request.prompts, _latent_frames(request), CHANNELS, side, side, seed=3)
    return {**_common(fx, request), "latents": latents, "strength": 1.0}


def _control(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    video = fx.uniform(request.prompts, _num_frames(request), 3, VIDEO_PIXELS, VIDEO_PIXELS)
    return {**_common(fx, request), "control_video": video}


# --------------------------------------------------------------------------- CogView


def _cogview3(fx: Framework) -> Any:
    transformer = fx.model(
        "CogView3PlusTransformer2DModel",
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=1,
        text_embed_dim=TEXT,
        time_embed_dim=8,
        condition_dim=2,
        pos_embed_max_size=4,
        sample_size=PIXELS // 8,
    )
    pipeline = fx.pipeline(
        "CogView3PlusPipeline",
        tokenizer=None,
        text_encoder=None,
        vae=None,
        transformer=transformer,
        scheduler=fx.scheduler("CogVideoXDDIMScheduler"),
    )

    pipeline._get_t5_prompt_embeds = _encoder(fx)
    return pipeline


def _cogview4(name: str, wide: bool = False) -> Callable[[Framework], Any]:
    def build(fx: Framework) -> Any:
        vae = fx.model(
            "AutoencoderKL",
            block_out_channels=(4,) * 4,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            latent_channels=CHANNELS,
            norm_num_groups=2,
        )
        if fx.name == "mindspore":
            # The control image's latents are drawn without a generator; fx.seed() is for torch.
            vae.diag_gauss_dist.deterministic = True
        transformer = fx.model(
            "CogView4Transformer2DModel",
            in_channels=CHANNELS * (1 + wide),
            out_channels=CHANNELS,
            num_layers=1,
            attention_head_dim=8,
            num_attention_heads=1,
            text_embed_dim=TEXT,
            time_embed_dim=8,
            condition_dim=2,
            rope_axes_dim=(4, 4),
        )
        pipeline = fx.pipeline(
            name,
            tokenizer=None,
            text_encoder=None,
            vae=vae if wide else None,
            transformer=transformer,
            scheduler=fx.scheduler("FlowMatchEulerDiscreteScheduler", use_dynamic_shifting=True),
        )
        pipeline._get_glm_embeds = lambda prompt, *_: _embeddings(fx, prompt)
        return pipeline

    return build


def _picture(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {
        "prompt": _texts("prompt", request),
        "negative_prompt": _texts("negative", request),
        "height": PIXELS,
        "width": PIXELS,
        "num_images_per_prompt": request.images,
        "num_inference_steps": request.steps,
        "guidance_scale": 5.0 if request.guided else 1.0,
        "generator": fx.generator(),
        "output_type": "latent",
    }


def _controlled(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    fx.seed()  # see the VAE
    return {**_picture(fx, pipeline, request), "control_image": fx.uniform(1, 3, PIXELS, PIXELS)}


ENTRIES = [
    Entry("CogVideoXPipeline", _video("CogVideoXPipeline"), _text2video, _ONE_VIDEO),
    Entry(
        "CogVideoXPipeline",
        _video("CogVideoXPipeline"),
        _dynamic,
        _ONE_VIDEO,
        variant="dynamic guidance",
    ),
    Entry(
        "CogVideoXPipeline",
        _video("CogVideoXPipeline", scheduler="CogVideoXDPMScheduler"),
        _text2video,
        _ONE_VIDEO,
        variant="DPM scheduler",
    ),
    Entry(
        "CogVideoXImageToVideoPipeline",
        _video("CogVideoXImageToVideoPipeline", wide=True, vae=True),
        _image2video,
        _ONE_VIDEO,
    ),
    Entry(
        "CogVideoXImageToVideoPipeline",
        _video(
            "CogVideoXImageToVideoPipeline", wide=True, vae=True, patch_size_t=2, ofs_embed_dim=8
        ),
        _image2video,
        _ONE_VIDEO,
        variant="version 1.5",
    ),
    Entry(
        "CogVideoXVideoToVideoPipeline",
        _video("CogVideoXVideoToVideoPipeline"),
        _video2video,
        _ONE_VIDEO,
    ),
    Entry(
        "CogVideoXFunControlPipeline",
        _video("CogVideoXFunControlPipeline", wide=True, vae=True),
        _control,
        _ONE_VIDEO,
    ),
    Entry("ConsisIDPipeline", _consisid, _faces, _ONE_VIDEO),
    Entry("CogView3PlusPipeline", _cogview3, _picture),
    Entry("CogView4Pipeline", _cogview4("CogView4Pipeline"), _picture),
    Entry("CogView4ControlPipeline", _cogview4("CogView4ControlPipeline", wide=True), _controlled),
]
