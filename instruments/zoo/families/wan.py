"""Wan and its kin: one or two experts over latents of a video, two calls of them a step."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from zoo.entry import Entry, Request
from zoo.framework import Framework

PIXELS = 32
FRAMES = 5
CHANNELS = 4
WIDTH = 24
TEXT = 8
#: Of the texts where a model has image embeddings too: it tells the two apart by this length.
LONG = 512
#: Of Helios's scheduler, whose default is 1/3. ``sample_block_noise`` (diffusers 0.42.1) factors a
#: covariance with the least eigenvalue 1 - 3 * gamma, and what it adds against 0, 1e-8, is lost in
#: float32: whether that succeeds at 1/3 depends on how a processor rounds.
GAMMA = 0.33
PROMPTS = ["a river in fog", "two red boats"]
NEGATIVE = "a blur"


def encoder(fx: Framework, length: int = 4, width: int = TEXT) -> Callable[..., Any]:
    """Make what stands in for a text encoder: a seeded embedding for each text."""

    def encode(prompt: str | list[str], num_videos_per_prompt: int = 1, *_: Any, **__: Any) -> Any:
        texts = [prompt] if isinstance(prompt, str) else prompt
        rows = [
            np.random.default_rng(zlib.crc32(text.encode())).normal(size=(length, width))
            for text in texts
        ]
        return fx.tensor(np.repeat(rows, num_videos_per_prompt, axis=0))

    return encode


def picture(size: int = PIXELS, seed: int = 1) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def video(frames: int = FRAMES, size: int = PIXELS, seed: int = 1) -> list[Image.Image]:
    return [picture(size, seed * 100 + i) for i in range(frames)]


def vae(fx: Framework, **more: Any) -> Any:
    return fx.model(
        "AutoencoderKLWan",
        base_dim=4,
        z_dim=CHANNELS,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        latents_mean=[0.1] * CHANNELS,
        latents_std=[1.1] * CHANNELS,
        **more,
    )


def flow(fx: Framework) -> Any:
    return fx.scheduler("FlowMatchEulerDiscreteScheduler")


def _heun(fx: Framework) -> Any:
    return fx.scheduler("FlowMatchHeunDiscreteScheduler")


def unipc(fx: Framework) -> Any:
    return fx.scheduler(
        "UniPCMultistepScheduler", prediction_type="flow_prediction", use_flow_sigmas=True
    )


def _transformer(fx: Framework, kind: str = "WanTransformer3DModel", **more: Any) -> Any:
    config = {
        "num_attention_heads": 2,
        "attention_head_dim": WIDTH // 2,
        "in_channels": CHANNELS,
        "out_channels": CHANNELS,
        "text_dim": TEXT,
        "freq_dim": 16,
        "ffn_dim": 16,
        "num_layers": 1,
        "rope_max_seq_len": 32,
    }
    return fx.model(kind, **{**config, **more})


def _with_image(fx: Framework, kind: str = "WanTransformer3DModel", **more: Any) -> Any:
    return _transformer(
        fx, kind, in_channels=3 * CHANNELS, image_dim=TEXT, added_kv_proj_dim=WIDTH, **more
    )


def _pipeline(
    fx: Framework, kind: str, length: int = 4, scheduler: Any = flow, **parts: Any
) -> Any:
    parts = {"text_encoder": None, "tokenizer": None, "vae": None, **parts}
    made = fx.pipeline(kind, scheduler=scheduler(fx), **parts)
    made._get_t5_prompt_embeds = encoder(fx, length)
    made.encode_image = lambda *_, **__: fx.normal(1, 5, TEXT)
    return made


def _common(fx: Framework, request: Request) -> dict[str, Any]:
    return {
        "prompt": PROMPTS[: request.prompts],
        "negative_prompt": NEGATIVE,
        "num_videos_per_prompt": request.images,
        "num_inference_steps": request.steps,
        "guidance_scale": 5.0 if request.guided else 1.0,
        "height": PIXELS,
        "width": PIXELS,
        "generator": fx.generator(),
        "output_type": "latent",
    }


def _frames(fx: Framework, request: Request) -> dict[str, Any]:
    return {**_common(fx, request), "num_frames": FRAMES}


def _text(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return _frames(fx, request)


def _text2video(fx: Framework, experts: int = 1, **config: Any) -> Any:
    parts = {"transformer": _transformer(fx), "transformer_2": None, **config}
    if experts == 2:
        parts.update(transformer_2=_transformer(fx), boundary_ratio=0.3)
    return _pipeline(fx, "WanPipeline", **parts)


def _two_scales(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {**_frames(fx, request), "guidance_scale_2": 3.0 if request.guided else 1.0}


def _image2video(fx: Framework, experts: int = 1, expand_timesteps: bool = False) -> Any:
    parts = {"transformer": _with_image(fx), "transformer_2": None, "vae": vae(fx)}
    if expand_timesteps:
        parts.update(transformer=_transformer(fx), expand_timesteps=True)
    if experts == 2:
        transformers = {
            name: _transformer(fx, in_channels=3 * CHANNELS)
            for name in ("transformer", "transformer_2")
        }
        parts.update(transformers, boundary_ratio=0.3)
    return _pipeline(
        fx,
        "WanImageToVideoPipeline",
        length=LONG if experts == 1 else 4,
        image_encoder=None,
        image_processor=None,
        **parts,
    )


def _image(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {**_frames(fx, request), "image": picture()}


def _vace(fx: Framework, experts: int = 1) -> Any:
    def transformer() -> Any:
        return _transformer(
            fx,
            "WanVACETransformer3DModel",
            vace_layers=[0],
            vace_in_channels=2 * CHANNELS + 64,
        )

    parts = {"transformer": transformer(), "vae": vae(fx)}
    if experts == 2:
        parts.update(transformer_2=transformer(), boundary_ratio=0.3)
    return _pipeline(fx, "WanVACEPipeline", **parts)


def _vace_arguments(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {**_frames(fx, request), "prompt": PROMPTS[0]}


def _video2video(fx: Framework) -> Any:
    return _pipeline(
        fx, "WanVideoToVideoPipeline", transformer=_transformer(fx), vae=vae(fx), scheduler=unipc
    )


def _video(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    videos = [video(seed=i) for i in range(request.prompts)]
    # The strength leaves out the first of five steps.
    return {**_common(fx, request), "video": videos, "num_inference_steps": 5, "strength": 0.8}


def _animate(fx: Framework) -> Any:
    transformer = _with_image(
        fx,
        "WanAnimateTransformer3DModel",
        latent_channels=CHANNELS,
        motion_encoder_channel_sizes={"4": 4, "8": 4, "16": 4},
        motion_encoder_size=16,
        motion_style_dim=8,
        motion_dim=4,
        motion_encoder_dim=8,
        face_encoder_hidden_dim=8,
        face_encoder_num_heads=2,
        inject_face_latents_blocks=1,
    )
    return _pipeline(
        fx,
        "WanAnimatePipeline",
        length=LONG,
        scheduler=unipc,
        transformer=transformer,
        vae=vae(fx),
        image_encoder=None,
        image_processor=None,
    )


def _animate_arguments(
    fx: Framework, pipeline: Any, request: Request, length: int = FRAMES, mode: str = "animate"
) -> dict[str, Any]:
    given = {
        **_common(fx, request),
        "image": picture(),
        "pose_video": video(length, seed=2),
        "face_video": video(length, 16, seed=3),
        "segment_frame_length": FRAMES,
        "mode": mode,
    }
    if mode == "replace":
        given["background_video"] = video(length, seed=4)
        given["mask_video"] = video(length, seed=5)
    return given


def _lucy(fx: Framework, experts: int = 1) -> Any:
    def transformer() -> Any:
        return _transformer(fx, in_channels=2 * CHANNELS)

    parts = {"transformer": transformer(), "transformer_2": None, "vae": vae(fx)}
    if experts == 2:
        parts.update(transformer_2=transformer(), boundary_ratio=0.3)
    return _pipeline(fx, "LucyEditPipeline", **parts)


def _lucy_arguments(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {**_frames(fx, request), "video": [video(seed=i) for i in range(request.rows)]}


def _chronoedit(fx: Framework) -> Any:
    return _pipeline(
        fx,
        "ChronoEditPipeline",
        length=LONG,
        scheduler=unipc,
        transformer=_with_image(fx, "ChronoEditTransformer3DModel"),
        vae=vae(fx),
        image_encoder=None,
        image_processor=None,
    )


def _reasoning(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {
        **_image(fx, pipeline, request),
        "num_frames": 9,
        "enable_temporal_reasoning": True,
        "num_temporal_reasoning_steps": 3,
    }


def _skyreels(fx: Framework, kind: str, length: int = 4, **more: Any) -> Any:
    return _pipeline(
        fx,
        kind,
        length,
        scheduler=unipc,
        transformer=_transformer(fx, "SkyReelsV2Transformer3DModel", **more),
        vae=vae(fx),
    )


def _skyreels_image(fx: Framework) -> Any:
    return _pipeline(
        fx,
        "SkyReelsV2ImageToVideoPipeline",
        LONG,
        scheduler=unipc,
        transformer=_with_image(fx, "SkyReelsV2Transformer3DModel"),
        vae=vae(fx),
        image_encoder=None,
        image_processor=None,
    )


def _forcing(kind: str = "") -> Callable[[Framework], Any]:
    return partial(_skyreels, kind=f"SkyReelsV2DiffusionForcing{kind}Pipeline")


def _long(given: dict[str, Any]) -> dict[str, Any]:
    """Ask for two runs of the loop, the second of which goes on from the first's last frame."""
    return {**given, "num_frames": 9, "base_num_frames": 5, "overlap_history": 1}


def _text_long(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return _long(_frames(fx, request))


def _text_asynchronous(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {**_frames(fx, request), "num_frames": 13, "ar_step": 2, "causal_block_size": 1}


def _image_long(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return _long(_image(fx, pipeline, request))


def _continued(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    videos = [video(seed=i) for i in range(request.prompts)]
    return {
        **_common(fx, request),
        "video": videos,
        "num_frames": 13,
        "base_num_frames": 9,
        "overlap_history": 5,
    }


def _anyflow(fx: Framework) -> Any:
    transformer = _transformer(fx, "AnyFlowTransformer3DModel")
    return _pipeline(fx, "AnyFlowPipeline", transformer=transformer, scheduler=_flow_map)


def _flow_map(fx: Framework) -> Any:
    return fx.scheduler("FlowMapEulerDiscreteScheduler")


def _anyflow_far(fx: Framework) -> Any:
    transformer = _transformer(
        fx, "AnyFlowFARTransformer3DModel", chunk_partition=(2,), full_chunk_limit=2
    )
    return _pipeline(fx, "AnyFlowFARPipeline", transformer=transformer, scheduler=_flow_map)


def _chunks(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {**_frames(fx, request), "num_frames": 9, "chunk_partition": [1, 2]}


def _continuing(fx: Framework, pipeline: Any, request: Request, **more: Any) -> dict[str, Any]:
    """Ask for a video whose first latent frame is given."""
    side = PIXELS // 8
    given = {**_frames(fx, request), **more}
    return {**given, "video_latents": fx.normal(1, 1, CHANNELS, side, side, seed=3)}


def _helios(fx: Framework, kind: str = "HeliosPipeline", **config: Any) -> Any:
    transformer = fx.model(
        "HeliosTransformer3DModel",
        num_attention_heads=2,
        attention_head_dim=WIDTH // 2,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        text_dim=TEXT,
        freq_dim=16,
        ffn_dim=16,
        num_layers=1,
        rope_dim=(4, 4, 4),
    )
    stages = 1 if kind == "HeliosPipeline" else 2
    made = _pipeline(
        fx,
        kind,
        transformer=transformer,
        vae=vae(fx),
        scheduler=partial(_staged, stages=stages),
        **config,
    )
    encode = encoder(fx)
    made._get_t5_prompt_embeds = lambda *args, **kwargs: (encode(*args, **kwargs), None)
    return made


def _staged(fx: Framework, stages: int) -> Any:
    ends = [i / stages for i in range(stages + 1)]
    return fx.scheduler("HeliosScheduler", stages=stages, stage_range=ends, gamma=GAMMA)


def _windows(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    """Ask for two windows of two latent frames."""
    return {
        **_common(fx, request),
        "height": 64,
        "width": 64,
        "num_frames": 10,
        "history_sizes": [4, 2, 1],
        "num_latent_frames_per_chunk": 2,
    }


def _pyramid(fx: Framework, pipeline: Any, request: Request, zero_steps: int = 1) -> dict[str, Any]:
    given = _windows(fx, pipeline, request)
    steps = given.pop("num_inference_steps")
    return {
        **given,
        "pyramid_num_inference_steps_list": [steps] * 2,
        "zero_steps": zero_steps,
    }


_IMAGE_ROWS = {
    "two images per prompt": "the image embeddings get a row for each prompt, not for each video"
}
_ONE_VIDEO = {
    "two prompts": "the preparation of its video latents refuses more than one video",
    "two images per prompt": "the call refuses more than one video per prompt",
}
_ONE_ROW = {"two images per prompt": "the latents get a row for each prompt, not for each video"}
_TORCH: dict[str, Any] = {"frameworks": ("torch",)}

ENTRIES = [
    Entry("WanPipeline", _text2video, _text),
    Entry("WanPipeline", partial(_text2video, experts=2), _two_scales, variant="two experts"),
    Entry(
        "WanPipeline",
        partial(_text2video, expand_timesteps=True, scheduler=unipc),
        _text,
        variant="a timestep for each token",
    ),
    Entry(
        "WanPipeline",
        partial(_text2video, scheduler=_heun),
        _text,
        variant="scheduler of order 2",
    ),
    Entry("WanImageToVideoPipeline", _image2video, _image, impossible=_IMAGE_ROWS),
    Entry(
        "WanImageToVideoPipeline",
        partial(_image2video, experts=2),
        _image,
        variant="two experts",
    ),
    Entry(
        "WanImageToVideoPipeline",
        partial(_image2video, expand_timesteps=True),
        _image,
        variant="a timestep for each token",
    ),
    Entry(
        "WanVACEPipeline",
        _vace,
        _vace_arguments,
        impossible=_ONE_VIDEO,
    ),
    Entry(
        "WanVACEPipeline",
        partial(_vace, experts=2),
        _vace_arguments,
        variant="two experts",
        impossible=_ONE_VIDEO,
        **_TORCH,
    ),
    Entry(
        "WanVideoToVideoPipeline",
        _video2video,
        _video,
        impossible={"two images per prompt": "the call sets the number of videos to 1"},
    ),
    Entry("WanAnimatePipeline", _animate, _animate_arguments, **_TORCH),
    Entry(
        "WanAnimatePipeline",
        _animate,
        partial(_animate_arguments, length=9, mode="replace"),
        variant="two segments, replacing",
        **_TORCH,
    ),
    Entry("LucyEditPipeline", _lucy, _lucy_arguments),
    Entry("LucyEditPipeline", partial(_lucy, experts=2), _lucy_arguments, variant="two experts"),
    Entry("ChronoEditPipeline", _chronoedit, _image, impossible=_IMAGE_ROWS, **_TORCH),
    Entry(
        "ChronoEditPipeline",
        _chronoedit,
        _reasoning,
        variant="temporal reasoning",
        impossible=_IMAGE_ROWS,
        **_TORCH,
    ),
    Entry("SkyReelsV2Pipeline", partial(_skyreels, kind="SkyReelsV2Pipeline"), _text),
    Entry("SkyReelsV2ImageToVideoPipeline", _skyreels_image, _image, impossible=_IMAGE_ROWS),
    Entry("SkyReelsV2DiffusionForcingPipeline", _forcing(), _text),
    Entry("SkyReelsV2DiffusionForcingPipeline", _forcing(), _text_long, variant="long"),
    Entry(
        "SkyReelsV2DiffusionForcingPipeline",
        _forcing(),
        _text_asynchronous,
        variant="asynchronous",
    ),
    Entry("SkyReelsV2DiffusionForcingImageToVideoPipeline", _forcing("ImageToVideo"), _image),
    Entry(
        "SkyReelsV2DiffusionForcingImageToVideoPipeline",
        _forcing("ImageToVideo"),
        _image_long,
        variant="long",
    ),
    Entry(
        "SkyReelsV2DiffusionForcingVideoToVideoPipeline",
        _forcing("VideoToVideo"),
        _continued,
        impossible={"two images per prompt": "the call sets the number of videos to 1"},
    ),
    Entry("AnyFlowPipeline", _anyflow, _text, **_TORCH),
    Entry("AnyFlowPipeline", _anyflow, _continuing, variant="from a frame", **_TORCH),
    Entry("AnyFlowFARPipeline", _anyflow_far, _text, **_TORCH),
    Entry(
        "AnyFlowFARPipeline",
        _anyflow_far,
        partial(_continuing, chunk_partition=[1, 1]),
        variant="from a frame",
        off_differs="the first call of its model, which is what is compared, only fills a cache",
        **_TORCH,
    ),
    Entry(
        "AnyFlowFARPipeline",
        _anyflow_far,
        _chunks,
        variant="two chunks",
        **_TORCH,
    ),
    Entry("HeliosPipeline", _helios, _windows, impossible=_ONE_ROW, **_TORCH),
    Entry(
        "HeliosPyramidPipeline",
        partial(_helios, kind="HeliosPyramidPipeline"),
        _pyramid,
        impossible=_ONE_ROW,
        **_TORCH,
    ),
    Entry(
        "HeliosPyramidPipeline",
        partial(_helios, kind="HeliosPyramidPipeline", is_cfg_zero_star=True),
        partial(_pyramid, zero_steps=2),
        variant="cfg zero star",
        impossible=_ONE_ROW,
        **_TORCH,
    ),
]
