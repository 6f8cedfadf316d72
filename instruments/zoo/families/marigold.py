"""Marigold, which predicts depth, normals and materials; its loops call no callback."""

from __future__ import annotations

from functools import partial
from typing import Any

from zoo.entry import Entry, Request
from zoo.families.diffusion_transformers import small_vae
from zoo.framework import Framework

PIXELS = 64
TEXT = 8


def _build(name: str, fx: Framework) -> Any:
    targets = 2 if "Intrinsics" in name else 1
    unet = fx.model(
        "UNet2DConditionModel",
        sample_size=8,
        in_channels=4 + 4 * targets,
        out_channels=4 * targets,
        block_out_channels=(8, 8),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=TEXT,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    more: dict[str, Any] = {"prediction_type": "depth" if "Depth" in name else "normals"}
    if targets == 2:
        properties = {"target_names": ["albedo", "material"]}
        properties |= {
            name: {"prediction_space": "srgb", "sub_target_names": ["r", None, None]}
            for name in ("albedo", "material")
        }
        more = {"prediction_type": "intrinsics", "target_properties": properties}
    pipeline = fx.pipeline(
        name,
        unet=unet,
        vae=small_vae(fx, 4),
        scheduler=fx.scheduler("DDIMScheduler", steps_offset=1),
        text_encoder=None,
        tokenizer=None,
        default_processing_resolution=0,
        **more,
    )
    pipeline.empty_text_embedding = fx.normal(1, 4, TEXT)
    return pipeline


def _arguments(
    members: int, at_once: int, fx: Framework, pipeline: Any, request: Request
) -> dict[str, Any]:
    return {
        "image": fx.uniform(request.prompts, 3, PIXELS, PIXELS, seed=5),
        "num_inference_steps": request.steps,
        "ensemble_size": members,
        "batch_size": at_once or request.prompts,
        "processing_resolution": 0,
        "generator": fx.generator(),
        "output_type": "np",
    }


_IMPOSSIBLE = {"two images per prompt": "the call has no number of predictions per picture"}
_ONE_PASS = {**_IMPOSSIBLE, "two prompts": "the rows of one pass are not those of all pictures"}

ENTRIES = [
    Entry(
        name,
        partial(_build, name),
        partial(_arguments, members, at_once),
        impossible,
        variant=variant,
    )
    for name in (
        "MarigoldDepthPipeline",
        "MarigoldNormalsPipeline",
        "MarigoldIntrinsicsPipeline",
    )
    for members, at_once, impossible, variant in (
        (1, 0, _IMPOSSIBLE, ""),
        (3, 1, _ONE_PASS, "an ensemble of three"),
    )
    if not (members > 1 and "Depth" in name)  # which needs scipy
]
