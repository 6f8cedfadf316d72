"""HunyuanVideo and its kin: true guidance in two calls, by a flag that is a local of the loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from zoo.entry import Entry, Request
from zoo.framework import Framework

PIXELS = 16
TEXT, TOKENS, POOLED = 8, 4, 4
CHANNELS = 4
#: Two frames of latents of one token each: as many tokens as calls, or as rows of two prompts.
FRAMES = 5
IMAGE = 6


def _texts(kind: str, request: Request) -> list[str]:
    return [f"{kind} {i}" for i in range(request.prompts)]


def _numbers(fx: Framework, texts: list[str], videos: int, *shape: int) -> Any:
    """Make the same numbers of each text every time, ``videos`` times."""
    rows = [np.random.default_rng(sum(text.encode())).normal(size=shape) for text in texts]
    return fx.tensor(np.repeat(np.stack(rows), videos, axis=0))


def _mask(fx: Framework, rows: int) -> Any:
    """Make a mask: the last token is padding."""
    mask = np.ones((rows, TOKENS))
    mask[:, -1] = 0
    return fx.tensor(mask, "int32")


def _transformer(fx: Framework, kind: str, in_channels: int, **more: Any) -> Any:
    return fx.model(
        kind,
        in_channels=in_channels,
        out_channels=CHANNELS,
        num_attention_heads=1,
        attention_head_dim=8,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        mlp_ratio=1.0,
        text_embed_dim=TEXT,
        pooled_projection_dim=POOLED,
        rope_axes_dim=(4, 2, 2),
        **more,
    )


def _vae(fx: Framework) -> Any:
    return fx.model(
        "AutoencoderKLHunyuanVideo",
        block_out_channels=(4,) * 4,
        latent_channels=CHANNELS,
        layers_per_block=1,
        norm_num_groups=2,
    )


def _masks_for_heads(fx: Framework, model: Any) -> Any:
    """Mend mindone's attention, which, without a device's kernels, makes rows of heads, but not in
    its mask."""
    cells = model.cells() if fx.name == "mindspore" else []
    for cell in cells:
        _masks_for_heads(fx, cell)
        if not hasattr(cell, "math_attention_op"):
            continue
        flat = cell.math_attention_op

        def repaired(query: Any, key: Any, value: Any, mask: Any = None, flat: Any = flat) -> Any:
            if mask is not None and len(mask.shape) == 4:
                shape = mask.shape[2:]
                mask = mask.broadcast_to((*query.shape[:2], *shape)).reshape((-1, *shape))
            return flat(query, key, value, mask)

        cell.math_attention_op = repaired
    return model


def _pipeline(
    name: str,
    in_channels: int = CHANNELS,
    *,
    vae: bool = True,
    kind: str = "HunyuanVideoTransformer3DModel",
    more: dict[str, Any] | None = None,
    **model: Any,
) -> Callable[[Framework], Any]:
    def build(fx: Framework) -> Any:
        pipeline = fx.pipeline(
            name,
            text_encoder=None,
            tokenizer=None,
            text_encoder_2=None,
            tokenizer_2=None,
            transformer=_masks_for_heads(fx, _transformer(fx, kind, in_channels, **model)),
            vae=_masks_for_heads(fx, _vae(fx)) if vae else None,
            scheduler=fx.scheduler("FlowMatchEulerDiscreteScheduler", shift=7.0),
            **(more or {}),
        )

        def encode(
            *_: Any, prompt: list[str], num_videos_per_prompt: int = 1, **given: Any
        ) -> tuple[Any, Any, Any]:
            videos = num_videos_per_prompt
            return (
                _numbers(fx, prompt, videos, TOKENS, TEXT),
                _numbers(fx, prompt, videos, POOLED),
                _mask(fx, len(prompt) * videos),
            )

        pipeline.encode_prompt = encode
        pipeline.encode_image = lambda image, **_: fx.normal(image.shape[0], 2, IMAGE, seed=3)
        return pipeline

    return build


def _text2video(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {
        "prompt": _texts("prompt", request),
        "negative_prompt": _texts("negative", request),
        "height": PIXELS,
        "width": PIXELS,
        "num_frames": FRAMES,
        "num_videos_per_prompt": request.images,
        "num_inference_steps": request.steps,
        "true_cfg_scale": 5.0 if request.guided else 1.0,
        "generator": fx.generator(),
        "output_type": "latent",
    }


def _image2video(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    image = fx.uniform(request.rows, 3, PIXELS, PIXELS)
    return {**_text2video(fx, pipeline, request), "image": image}


def _sections(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    """Ask for two sections, one after the other, of two frames of latents each."""
    return {
        **_image2video(fx, pipeline, request),
        "num_frames": 2 * FRAMES,
        "latent_window_size": 2,
    }


def _forwards(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {**_sections(fx, pipeline, request), "sampling_type": "vanilla"}


_framepack = _pipeline(
    "HunyuanVideoFramepackPipeline",
    kind="HunyuanVideoFramepackTransformer3DModel",
    more={"image_encoder": None, "feature_extractor": None},
    has_image_proj=True,
    image_proj_dim=IMAGE,
    has_clean_x_embedder=True,
)
_ONE_VIDEO = {"two images per prompt": "it makes latents for one video a prompt, whatever is asked"}

ENTRIES = [
    Entry("HunyuanVideoPipeline", _pipeline("HunyuanVideoPipeline", vae=False), _text2video),
    Entry(
        "HunyuanSkyreelsImageToVideoPipeline",
        _pipeline("HunyuanSkyreelsImageToVideoPipeline", 2 * CHANNELS),
        _image2video,
    ),
    Entry(
        "HunyuanVideoImageToVideoPipeline",
        _pipeline(
            "HunyuanVideoImageToVideoPipeline",
            2 * CHANNELS + 1,
            image_condition_type="latent_concat",
            guidance_embeds=False,
            more={"image_processor": None},
        ),
        _image2video,
        variant="latent_concat",
        # mindone makes its mask with new_ones of several numbers, which MindSpore has not.
        frameworks=("torch",),
    ),
    Entry(
        "HunyuanVideoImageToVideoPipeline",
        _pipeline(
            "HunyuanVideoImageToVideoPipeline",
            image_condition_type="token_replace",
            more={"image_processor": None},
        ),
        _image2video,
        variant="token_replace",
    ),
    Entry("HunyuanVideoFramepackPipeline", _framepack, _sections, _ONE_VIDEO),
    Entry("HunyuanVideoFramepackPipeline", _framepack, _forwards, _ONE_VIDEO, variant="vanilla"),
]
