"""Diffusion without a prompt, and the first of latent diffusion; their loops call no callback."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from zoo.entry import Entry, Request
from zoo.families.diffusion_transformers import small_vae
from zoo.framework import Framework

CELLS = 8
PIXELS = 64
TEXT = 8
TOKENS = 77
_IMPOSSIBLE = {"two images per prompt": "the call has no number of pictures per prompt"}


def _unet(fx: Framework, channels: int, out: int, **more: Any) -> Any:
    return fx.model(
        "UNet2DModel",
        sample_size=CELLS,
        in_channels=channels,
        out_channels=out,
        block_out_channels=(8, 8),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        attention_head_dim=4,
        norm_num_groups=4,
        **more,
    )


def _pixels(name: str, scheduler: str, fx: Framework) -> Any:
    # DDIMPipeline makes a DDIM of its scheduler, whatever that is.
    more = {} if scheduler.startswith("CM") else {"clip_sample": True}
    return fx.pipeline(name, unet=_unet(fx, 3, 3), scheduler=fx.scheduler(scheduler, **more))


def _drawn(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {
        "batch_size": request.prompts,
        "num_inference_steps": request.steps,
        "generator": fx.generator(),
        "output_type": "np",
    }


def _larger(fx: Framework) -> Any:
    return fx.pipeline(
        "LDMSuperResolutionPipeline",
        vqvae=small_vae(fx, 3),
        unet=_unet(fx, 6, 3),
        scheduler=fx.scheduler("DDIMScheduler"),
    )


def _enlarged(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    made = _drawn(fx, pipeline, request)
    del made["batch_size"]
    return {**made, "image": fx.uniform(request.prompts, 3, CELLS, CELLS, seed=5)}


class _Texts:
    """Stand for a tokenizer: all texts are of the same tokens, but empty ones."""

    def __init__(self, fx: Framework) -> None:
        self._fx = fx

    def __call__(self, texts: list[str], **_: Any) -> Any:
        ids = [[len(text) % 16] * TOKENS for text in texts]
        return _Ids(self._fx.tensor(np.array(ids), "int64"))


class _Ids:
    def __init__(self, ids: Any) -> None:
        self.input_ids = ids


def _latent(fx: Framework) -> Any:
    module = "pipelines.latent_diffusion.pipeline_latent_diffusion"
    config, bert = (fx.named(name, module) for name in ("LDMBertConfig", "LDMBertModel"))
    unet = fx.model(
        "UNet2DConditionModel",
        sample_size=CELLS,
        in_channels=4,
        out_channels=4,
        block_out_channels=(8, 8),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=TEXT,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    text = config(
        vocab_size=16,
        encoder_layers=1,
        encoder_ffn_dim=8,
        encoder_attention_heads=2,
        head_dim=4,
        d_model=TEXT,
    )
    return fx.pipeline(
        "LDMTextToImagePipeline",
        vqvae=small_vae(fx, 4),
        bert=fx.fill(bert(text)),
        tokenizer=_Texts(fx),
        unet=unet,
        scheduler=fx.scheduler("DDIMScheduler", clip_sample=False),
    )


def _worded(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    made = _drawn(fx, pipeline, request)
    del made["batch_size"]
    return {
        **made,
        "prompt": ["a picture"] * request.prompts,
        "guidance_scale": 15.0 if request.guided else 1.0,
        "height": PIXELS,
        "width": PIXELS,
    }


_DRAWN = {
    "DDIMPipeline": "DDIMScheduler",
    "DDPMPipeline": "DDPMScheduler",
    "ConsistencyModelPipeline": "CMStochasticIterativeScheduler",
}

ENTRIES = [
    *(
        Entry(name, partial(_pixels, name, scheduler), _drawn, _IMPOSSIBLE, returns="pt")
        for name, scheduler in _DRAWN.items()
    ),
    Entry("LDMSuperResolutionPipeline", _larger, _enlarged, _IMPOSSIBLE),
    Entry(
        "LDMTextToImagePipeline",
        _latent,
        _worded,
        _IMPOSSIBLE,
    ),
]
