"""LTX-Video, and LTX-2, which denoises a video and its sound together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from zoo.entry import Entry, Request
from zoo.framework import Framework

#: Two frames of latents of two tokens each: as many tokens as rows in the doubled batch of two.
HEIGHT, WIDTH, FRAMES = 64, 32, 9
TEXT, TOKENS = 8, 4
CHANNELS = 4
#: Of the sound, with one channel of 8 mel bins; its latents are packed to as many channels.
MEL_BINS = 8

_BLOCKS = 4


def _texts(kind: str, request: Request) -> list[str]:
    return [f"{kind} {i}" for i in range(request.prompts)]


def _encoder(fx: Framework) -> Callable[..., tuple[Any, Any]]:
    """Make what stands in for a text encoder: the same numbers of each text every time, and a
    mask."""

    def encode(prompt: list[str], num_videos_per_prompt: int = 1, **_: Any) -> tuple[Any, Any]:
        videos = num_videos_per_prompt
        rows = [np.random.default_rng(sum(p.encode())).normal(size=(TOKENS, TEXT)) for p in prompt]
        mask = np.ones((len(prompt) * videos, TOKENS))
        mask[:, 0] = 0  # padding
        return fx.tensor(np.repeat(np.stack(rows), videos, axis=0)), fx.tensor(mask, "int32")

    return encode


def _common(fx: Framework, request: Request) -> dict[str, Any]:
    return {
        "prompt": _texts("prompt", request),
        "negative_prompt": _texts("negative", request),
        "height": HEIGHT,
        "width": WIDTH,
        "num_frames": FRAMES,
        "num_inference_steps": request.steps,
        "guidance_scale": 5.0 if request.guided else 1.0,
        "num_videos_per_prompt": request.images,
        "generator": fx.generator(),
        "output_type": "latent",
    }


def _pictures(fx: Framework, request: Request) -> Any:
    return fx.uniform(request.rows, 3, HEIGHT, WIDTH, seed=3)


# --------------------------------------------------------------------------- LTX-Video


def video_vae(fx: Framework) -> Any:
    return fx.model(
        "AutoencoderKLLTXVideo",
        latent_channels=CHANNELS,
        block_out_channels=(4,) * _BLOCKS,
        decoder_block_out_channels=(4,) * _BLOCKS,
        layers_per_block=(1,) * (_BLOCKS + 1),
        decoder_layers_per_block=(1,) * (_BLOCKS + 1),
    )


def video2_vae(fx: Framework) -> Any:
    return fx.model(
        "AutoencoderKLLTX2Video",
        latent_channels=CHANNELS,
        block_out_channels=(8,) * _BLOCKS,
        decoder_block_out_channels=(8, 16, 32),
        layers_per_block=(1,) * (_BLOCKS + 1),
        decoder_layers_per_block=(1,) * _BLOCKS,
        decoder_spatial_padding_mode="zeros",  # a picture one cell wide cannot be reflected
        spatial_compression_ratio=32,
        temporal_compression_ratio=8,
    )


def _ltx(
    name: str, vae: bool = True, scheduler: str = "FlowMatchEulerDiscreteScheduler"
) -> Callable[[Framework], Any]:
    def build(fx: Framework) -> Any:
        transformer = fx.model(
            "LTXVideoTransformer3DModel",
            in_channels=CHANNELS,
            out_channels=CHANNELS,
            num_attention_heads=1,
            attention_head_dim=8,
            cross_attention_dim=8,
            num_layers=1,
            caption_channels=TEXT,
        )
        made = video_vae(fx)
        pipeline = fx.pipeline(
            name,
            scheduler=fx.scheduler(scheduler),
            vae=made if vae else None,
            text_encoder=None,
            tokenizer=None,
            transformer=transformer,
        )
        pipeline._get_t5_prompt_embeds = _encoder(fx)
        return pipeline

    return build


def _text2video(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return _common(fx, request)


def _rescaled(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {**_common(fx, request), "guidance_rescale": 0.7}


def _image2video(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {**_common(fx, request), "image": _pictures(fx, request)}


def _first_frame(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {**_common(fx, request), "image": fx.uniform(1, 3, HEIGHT, WIDTH, seed=3)}


def _keyframe(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    """Make the arguments with a condition, whose tokens stand before those of the video."""
    return {**_first_frame(fx, pipeline, request), "frame_index": 8}


def _long(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    arguments = {
        **_common(fx, request),
        "prompt": "a cat | a dog",
        "negative_prompt": "noise",
        "cond_image": fx.uniform(1, 3, HEIGHT, WIDTH, seed=3),
        "temporal_tile_size": 16,
        "temporal_overlap": 8,
    }
    del arguments["num_videos_per_prompt"]
    return arguments


# --------------------------------------------------------------------------- LTX-2


def _ltx2(
    name: str, scheduler: str = "FlowMatchEulerDiscreteScheduler", upsampler: bool = False
) -> Callable[[Framework], Any]:
    def build(fx: Framework) -> Any:
        transformer = fx.model(
            "LTX2VideoTransformer3DModel",
            in_channels=CHANNELS,
            out_channels=CHANNELS,
            num_attention_heads=1,
            attention_head_dim=8,
            cross_attention_dim=8,
            audio_in_channels=CHANNELS,
            audio_out_channels=CHANNELS,
            audio_num_attention_heads=1,
            audio_attention_head_dim=8,
            audio_cross_attention_dim=8,
            num_layers=1,
            caption_channels=TEXT,
            perturbed_attn=True,
            use_keyframes_abs_pos_embedding=upsampler,
        )
        connectors = fx.fill(
            fx.library.pipelines.ltx2.LTX2TextConnectors(
                caption_channels=TEXT,
                text_proj_in_factor=1,
                **{
                    f"{kind}_connector_{figure}": value
                    for kind in ("video", "audio")
                    for figure, value in {
                        "num_attention_heads": 1,
                        "attention_head_dim": TEXT,
                        "num_layers": 1,
                        "num_learnable_registers": TOKENS,
                    }.items()
                },
            )
        )
        vae = video2_vae(fx)
        audio_vae = fx.model(
            "AutoencoderKLLTX2Audio",
            base_channels=CHANNELS,
            latent_channels=CHANNELS * 4 // MEL_BINS,
            num_res_blocks=1,
            mel_bins=MEL_BINS,
        )
        pipeline = fx.pipeline(
            name,
            scheduler=fx.scheduler(scheduler),
            vae=vae,
            audio_vae=audio_vae,
            text_encoder=None,
            tokenizer=None,
            connectors=connectors,
            transformer=transformer,
            vocoder=fx.fill(
                fx.library.pipelines.ltx2.LTX2Vocoder(
                    in_channels=2 * MEL_BINS,
                    hidden_channels=4,
                    upsample_kernel_sizes=[4],
                    upsample_factors=[2],
                    resnet_kernel_sizes=[3],
                    resnet_dilations=[[1]],
                )
            ),
            **({"temporal_latent_upsampler": _upsampler(fx)} if upsampler else {}),
        )
        pipeline._get_gemma_prompt_embeds = _encoder(fx)
        return pipeline

    return build


def _upsampler(fx: Framework) -> Any:
    kind = fx.library.pipelines.ltx2.latent_upsampler.LTX2LatentUpsamplerModel
    return fx.fill(
        kind(
            in_channels=CHANNELS,
            mid_channels=32,
            num_blocks_per_stage=1,
            spatial_upsample=False,
            temporal_upsample=True,
        )
    )


def _sound(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    """Guide by the negative prompt alone."""
    return {
        **_common(fx, request),
        "audio_guidance_scale": 7.0 if request.guided else 1.0,
        "stg_scale": 0.0,
        "audio_stg_scale": 0.0,
        "modality_scale": 1.0,
        "audio_modality_scale": 1.0,
    }


def _sound_alone(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {
        **_sound(fx, pipeline, request),
        "guidance_scale": 1.0,
        "audio_guidance_scale": 20.0 if request.guided else 1.0,
    }


def _all_guidance(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    """Guide by the negative prompt, and by calls with layers skipped and with picture and sound
    apart."""
    return {
        **_sound(fx, pipeline, request),
        "stg_scale": 1.0,
        "audio_stg_scale": 1.0,
        "modality_scale": 3.0,
        "audio_modality_scale": 3.0,
        "spatio_temporal_guidance_blocks": [0],
    }


def _sound_image(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {**_sound(fx, pipeline, request), "image": _pictures(fx, request), "image_crf": 0}


def _condition(fx: Framework, index: int) -> Any:
    """Return a picture at a frame of the latents."""
    frames = fx.uniform(1, 3, HEIGHT, WIDTH, seed=3) * 255
    where = fx.library.pipelines.ltx2.pipeline_ltx2_condition
    return where.LTX2VideoCondition(frames=frames, index=index, strength=0.9, crf=0)


def _conditions(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {
        **_sound(fx, pipeline, request),
        "conditions": [_condition(fx, 0), _condition(fx, 1)],
    }


def _reference(fx: Framework) -> Any:
    where = fx.library.pipelines.ltx2.pipeline_ltx2_ic_lora
    return where.LTX2ReferenceCondition(frames=fx.uniform(FRAMES, 3, HEIGHT, WIDTH, seed=4))


def _in_context(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {
        **_conditions(fx, pipeline, request),
        "reference_conditions": [_reference(fx)],
        "conditioning_attention_strength": 0.5,
    }


def _in_context_all(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {**_in_context(fx, pipeline, request), **_all_guidance(fx, pipeline, request)}


def _hdr(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {**_common(fx, request), "reference_conditions": [_reference(fx)]}


def _distilled(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    arguments = {**_common(fx, request), "sigmas": [1.0, 0.8, 0.5, 0.2], "generate_slots": False}
    for name in ("negative_prompt", "guidance_scale", "num_inference_steps"):
        del arguments[name]
    return arguments


def _refined(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    """Ask for a round after a pass that has made a video, a keyframe and the sound."""
    height, width = HEIGHT // 32, WIDTH // 32
    return {
        "latents": fx.normal(request.prompts, CHANNELS, 2, height, width, seed=3),
        "keyframes_latents": fx.normal(request.prompts, CHANNELS, 1, height, width, seed=4),
        "keyframe_positions": [FRAMES - 1],
        "audio_latents": fx.normal(
            request.prompts, CHANNELS * 4 // MEL_BINS, 9, MEL_BINS // 4, seed=5
        ),
        "prompt": _texts("prompt", request),
        "height": HEIGHT,
        "width": WIDTH,
        "num_frames": FRAMES,
        "sigmas": [1.0, 0.8, 0.5, 0.2],
        "generator": fx.generator(),
        "output_type": "latent",
    }


_ONE_AT_A_TIME = {
    "two prompts": "the condition's tokens have one row",
    "two images per prompt": "the condition's tokens have one row",
}
_ONE_VIDEO = {
    "two prompts": "its prompts follow each other in one video",
    "two images per prompt": "it makes one video",
}
_TORCH = ("torch",)

ENTRIES = [
    Entry("LTXPipeline", _ltx("LTXPipeline", vae=False), _text2video),
    Entry(
        "LTXPipeline",
        _ltx("LTXPipeline", vae=False),
        _rescaled,
        variant="guidance_rescale",
    ),
    Entry("LTXImageToVideoPipeline", _ltx("LTXImageToVideoPipeline"), _image2video),
    Entry("LTXConditionPipeline", _ltx("LTXConditionPipeline"), _first_frame),
    Entry(
        "LTXConditionPipeline",
        _ltx("LTXConditionPipeline"),
        _keyframe,
        _ONE_AT_A_TIME,
        variant="keyframe",
    ),
    Entry(
        "LTXI2VLongMultiPromptPipeline",
        _ltx("LTXI2VLongMultiPromptPipeline", scheduler="LTXEulerAncestralRFScheduler"),
        _long,
        _ONE_VIDEO,
        frameworks=_TORCH,
    ),
    Entry("LTX2Pipeline", _ltx2("LTX2Pipeline"), _sound, frameworks=_TORCH),
    Entry(
        "LTX2Pipeline",
        _ltx2("LTX2Pipeline"),
        _sound_alone,
        variant="guidance of the sound alone",
        frameworks=_TORCH,
    ),
    Entry(
        "LTX2Pipeline",
        _ltx2("LTX2Pipeline"),
        _all_guidance,
        variant="all kinds of guidance",
        saves_less="the calls of its other kinds of guidance go on",
        frameworks=_TORCH,
    ),
    Entry(
        "LTX2ImageToVideoPipeline",
        _ltx2("LTX2ImageToVideoPipeline"),
        _sound_image,
        frameworks=_TORCH,
    ),
    Entry("LTX2ConditionPipeline", _ltx2("LTX2ConditionPipeline"), _conditions, frameworks=_TORCH),
    Entry("LTX2InContextPipeline", _ltx2("LTX2InContextPipeline"), _in_context, frameworks=_TORCH),
    Entry(
        "LTX2InContextPipeline",
        _ltx2("LTX2InContextPipeline"),
        _in_context_all,
        variant="all kinds of guidance",
        saves_less="the calls of its other kinds of guidance go on",
        frameworks=_TORCH,
    ),
    Entry("LTX2HDRPipeline", _ltx2("LTX2HDRPipeline"), _hdr, frameworks=_TORCH),
    Entry("LTX2DFRPipeline", _ltx2("LTX2DFRPipeline"), _distilled, frameworks=_TORCH),
    Entry(
        "LTX2DFRTemporalRefinePipeline",
        _ltx2("LTX2DFRTemporalRefinePipeline", "LTXEulerAncestralRFScheduler", upsampler=True),
        _refined,
        {"two images per prompt": "it refines the videos that it is given"},
        frameworks=_TORCH,
    ),
]
