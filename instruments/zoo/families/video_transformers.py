"""EasyAnimate, Mochi and MotifVideo."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import PIL.Image

from zoo.entry import Entry, Request
from zoo.framework import Framework

PIXELS = 16
TEXT, TOKENS = 16, 4
CHANNELS = 4
#: Of latents, with one token each.
FRAMES = 2


def _texts(kind: str, request: Request) -> list[str]:
    return [f"{kind} {i}" for i in range(request.prompts)]


def _embeddings(fx: Framework, texts: list[str], videos: int = 1) -> Any:
    """Embed each text by the same numbers every time, ``videos`` times."""
    rows = [np.random.default_rng(sum(text.encode())).normal(size=(TOKENS, TEXT)) for text in texts]
    return fx.tensor(np.repeat(np.stack(rows), videos, axis=0))


def _mask(fx: Framework, rows: int) -> Any:
    """Make a mask: the last token is padding."""
    mask = np.ones((rows, TOKENS))
    mask[:, -1] = 0
    return fx.tensor(mask, "int32")


def _given(fx: Framework, request: Request, videos: int = 1) -> Any:
    """Return the embeddings as arguments of the call."""
    rows = request.prompts * videos
    return {
        "prompt_embeds": _embeddings(fx, _texts("prompt", request), videos),
        "negative_prompt_embeds": _embeddings(fx, _texts("negative", request), videos),
        "prompt_attention_mask": _mask(fx, rows),
        "negative_prompt_attention_mask": _mask(fx, rows),
    }


def _common(fx: Framework, request: Request) -> dict[str, Any]:
    return {
        "height": PIXELS,
        "width": PIXELS,
        "num_inference_steps": request.steps,
        "guidance_scale": 5.0 if request.guided else 1.0,
        "generator": fx.generator(),
        "output_type": "latent",
    }


# --------------------------------------------------------------------------- EasyAnimate


def _repaired(vae: Any) -> Any:
    """Mend mindone's VAE, which keeps frames of one video for the next, and draws without a
    generator."""

    def clear() -> None:
        for _, cell in vae.cells_and_names():
            if hasattr(cell, "prev_features"):
                cell.prev_features = None

    vae._clear_conv_cache = clear
    vae.diag_gauss_dist.deterministic = True
    return vae


def _easyanimate(
    name: str, extra_channels: int = 0, scheduler: str = "FlowMatchEulerDiscreteScheduler"
) -> Callable[[Framework], Any]:
    def build(fx: Framework) -> Any:
        transformer = fx.model(
            "EasyAnimateTransformer3DModel",
            num_attention_heads=1,
            attention_head_dim=16,
            in_channels=CHANNELS + extra_channels,
            out_channels=CHANNELS,
            patch_size=2,
            num_layers=1,
            mmdit_layers=1,
            time_embed_dim=8,
            text_embed_dim=TEXT,
            sample_width=PIXELS // 8,
            sample_height=PIXELS // 8,
            # Its other way asks the VAE for a figure that no VAE has.
            resize_inpaint_mask_directly=False,
            add_noise_in_inpaint_model=False,
        )
        vae = fx.model(
            "AutoencoderKLMagvit",
            block_out_channels=(4,) * 4,
            latent_channels=CHANNELS,
            layers_per_block=1,
            norm_num_groups=2,
        )
        pipeline = fx.pipeline(
            name,
            vae=_repaired(vae) if fx.name == "mindspore" else vae,
            text_encoder=None,
            tokenizer=None,
            transformer=transformer,
            scheduler=fx.scheduler(scheduler),
        )
        encode = pipeline.encode_prompt

        def without_index(text_encoder_index: int = 0, **given: Any) -> Any:
            """Drop an argument that the loop of the control pipeline passes and the method does not
            take."""
            return encode(**given)

        pipeline.encode_prompt = without_index
        return pipeline

    return build


def _text2video(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {
        **_common(fx, request),
        **_given(fx, request),
        "num_images_per_prompt": request.images,
        "num_frames": 4 * (FRAMES - 1) + 1,
    }


def _rescaled(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {**_text2video(fx, pipeline, request), "guidance_rescale": 0.7}


def _video(fx: Framework, request: Request, frames: int = FRAMES) -> Any:
    return fx.uniform(request.rows, 3, 4 * (frames - 1) + 1, PIXELS, PIXELS, seed=3)


def _control(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {
        **_text2video(fx, pipeline, request),
        "control_video": _video(fx, request),
        "ref_image": _video(fx, request, frames=1),
    }


def _inpaint(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    mask = np.zeros((request.prompts, 1, 4 * (FRAMES - 1) + 1, PIXELS, PIXELS))
    mask[..., PIXELS // 2 :] = 1
    return {
        **_text2video(fx, pipeline, request),
        "video": fx.uniform(request.prompts, 3, *mask.shape[2:], seed=3),
        "mask_video": fx.tensor(mask),
    }


def _inpaint_by_latents(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    fx.seed()  # the video's latents are drawn without the generator
    return _inpaint(fx, pipeline, request)


# --------------------------------------------------------------------------- Mochi


def _mochi(fx: Framework) -> Any:
    pipeline = fx.pipeline(
        "MochiPipeline",
        scheduler=fx.scheduler("FlowMatchEulerDiscreteScheduler", invert_sigmas=True),
        vae=None,
        text_encoder=None,
        tokenizer=None,
        transformer=fx.model(
            "MochiTransformer3DModel",
            num_attention_heads=2,
            attention_head_dim=8,
            num_layers=2,
            pooled_projection_dim=8,
            in_channels=CHANNELS,
            text_embed_dim=TEXT,
            time_embed_dim=8,
            max_sequence_length=TOKENS,
        ),
    )

    def encode(prompt: list[str], num_videos_per_prompt: int = 1, **_: Any) -> tuple[Any, Any]:
        rows = len(prompt) * num_videos_per_prompt
        return _embeddings(fx, prompt, num_videos_per_prompt), _mask(fx, rows)

    pipeline._get_t5_prompt_embeds = encode
    return pipeline


def _mochi_arguments(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {
        **_common(fx, request),
        "prompt": _texts("prompt", request),
        "negative_prompt": _texts("negative", request),
        "num_videos_per_prompt": request.images,
        "num_frames": 6 * (FRAMES - 1) + 1,
    }


# --------------------------------------------------------------------------- MotifVideo


def _motif(name: str) -> Callable[[Framework], Any]:
    def build(fx: Framework) -> Any:
        transformer = fx.model(
            "MotifVideoTransformer3DModel",
            in_channels=2 * CHANNELS + 1,
            out_channels=CHANNELS,
            num_attention_heads=1,
            attention_head_dim=8,
            num_layers=1,
            num_single_layers=1,
            mlp_ratio=1.0,
            text_embed_dim=TEXT,
            rope_axes_dim=(4, 2, 2),
        )
        vae = fx.model(
            "AutoencoderKLWan",
            base_dim=4,
            z_dim=CHANNELS,
            dim_mult=[1] * 4,
            num_res_blocks=1,
            latents_mean=[0.0] * CHANNELS,
            latents_std=[1.0] * CHANNELS,
        )
        return fx.pipeline(
            name,
            scheduler=fx.scheduler("FlowMatchEulerDiscreteScheduler"),
            vae=vae,
            text_encoder=None,
            tokenizer=None,
            transformer=transformer,
            guider=fx.library.ClassifierFreeGuidance(guidance_scale=5.0),
            feature_extractor=None,
        )

    return build


def _motif_arguments(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    pipeline.guider = pipeline.guider.new(guidance_scale=5.0 if request.guided else 1.0)
    arguments = {**_common(fx, request), **_given(fx, request)}
    del arguments["guidance_scale"]
    return {
        **arguments,
        "prompt": None,
        "num_videos_per_prompt": request.images,
        "num_frames": 4 * (FRAMES - 1) + 1,
    }


def _motif_image(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    image = PIL.Image.new("RGB", (PIXELS, PIXELS), "teal")
    return {**_motif_arguments(fx, pipeline, request), "image": image}


_EASY = "EasyAnimatePipeline"

ENTRIES = [
    Entry(_EASY, _easyanimate(_EASY), _text2video),
    Entry(_EASY, _easyanimate(_EASY), _rescaled, variant="guidance_rescale"),
    Entry(
        "EasyAnimateControlPipeline",
        _easyanimate("EasyAnimateControlPipeline", 2 * CHANNELS),
        _control,
    ),
    Entry(
        "EasyAnimateInpaintPipeline",
        _easyanimate("EasyAnimateInpaintPipeline", 2 * CHANNELS),
        _inpaint,
        {"two images per prompt": "the mask has latents for each video, not for each image of it"},
    ),
    Entry(
        "EasyAnimateInpaintPipeline",
        _easyanimate("EasyAnimateInpaintPipeline", scheduler="DDIMScheduler"),
        _inpaint_by_latents,
        variant="without extra channels",
    ),
    Entry("MochiPipeline", _mochi, _mochi_arguments),
    Entry(
        "MotifVideoPipeline",
        _motif("MotifVideoPipeline"),
        _motif_arguments,
        frameworks=("torch",),
    ),
    Entry(
        "MotifVideoImage2VideoPipeline",
        _motif("MotifVideoImage2VideoPipeline"),
        _motif_image,
        {
            "two prompts": "it takes one picture and encodes it for one row",
            "two images per prompt": "it repeats a mask that has all rows already",
        },
        frameworks=("torch",),
    ),
]
