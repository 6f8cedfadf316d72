"""Tiny pipelines of more sorts than the conformance suite has, and that each of them is cut.

They have no text encoders: they are called with embeddings.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import pytest
import torch
from test_composes import Call, call_of, check_cut, normal, seeded

from unicb.testing.tiny import PIXELS, TEXT_WIDTH
from unicb_torch.harness import harness

Build = Callable[[], tuple[Any, Call]]
STEPS = 8


def random(model: Any) -> Any:
    """``model`` without zeros, which many of its layers start with."""
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return model.eval()


def scheduler(**config: Any) -> Any:
    return diffusers.FlowMatchEulerDiscreteScheduler(**config)


def ltx(layers: int = 3) -> tuple[Any, Call]:
    """Both halves in one batch."""
    torch.manual_seed(0)
    transformer = diffusers.LTXVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        cross_attention_dim=16,
        num_layers=layers,
        caption_channels=8,
    )
    parts = dict.fromkeys(("vae", "text_encoder", "tokenizer"))
    pipe = diffusers.LTXPipeline(
        transformer=random(transformer), scheduler=scheduler(use_dynamic_shifting=True), **parts
    )
    pipe.set_progress_bar_config(disable=True)
    mask = torch.ones(2, 4, dtype=torch.bool)
    keywords = {
        "prompt_embeds": normal(2, 4, 8),
        "negative_prompt_embeds": normal(2, 4, 8, seed=2),
        "prompt_attention_mask": mask,
        "negative_prompt_attention_mask": mask,
        "height": 64,
        "width": 64,
        "num_frames": 9,
        "num_inference_steps": STEPS,
        "guidance_scale": 4.0,
    }
    return pipe, seeded(pipe, keywords)


def flux() -> tuple[Any, Call]:
    """Two calls a step, by a flag that is a local of the loop."""
    torch.manual_seed(0)
    transformer = diffusers.FluxTransformer2DModel(
        in_channels=16,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=8,
        pooled_projection_dim=8,
        axes_dims_rope=(2, 2, 4),
    )
    names = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "vae")
    pipe = diffusers.FluxPipeline(
        transformer=random(transformer), scheduler=scheduler(shift=2.0), **dict.fromkeys(names)
    )
    pipe.set_progress_bar_config(disable=True)
    keywords = {
        "prompt_embeds": normal(1, 4, 8),
        "pooled_prompt_embeds": normal(1, 8),
        "negative_prompt_embeds": normal(1, 4, 8, seed=2),
        "negative_pooled_prompt_embeds": normal(1, 8, seed=2),
        "height": 32,
        "width": 32,
        "num_inference_steps": STEPS,
        "true_cfg_scale": 4.0,
    }
    return pipe, seeded(pipe, keywords)


def wan() -> tuple[Any, Call]:
    """Two calls a step, by a property."""
    torch.manual_seed(0)
    transformer = diffusers.WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=8,
        freq_dim=16,
        ffn_dim=16,
        num_layers=3,
        rope_max_seq_len=32,
    )
    parts = dict.fromkeys(("vae", "text_encoder", "tokenizer", "transformer_2"))
    pipe = diffusers.WanPipeline(
        transformer=random(transformer), scheduler=scheduler(shift=2.0), **parts
    )
    pipe.set_progress_bar_config(disable=True)
    keywords = {
        "prompt_embeds": normal(1, 4, 8),
        "negative_prompt_embeds": normal(1, 4, 8, seed=2),
        "height": 32,
        "width": 32,
        "num_frames": 5,
        "num_inference_steps": STEPS,
        "guidance_scale": 4.0,
    }
    return pipe, seeded(pipe, keywords)


def animate_diff() -> Any:
    torch.manual_seed(0)
    blocks = {
        "block_out_channels": (8, 16),
        "motion_max_seq_length": 8,
        "motion_num_attention_heads": 2,
    }
    unet = diffusers.UNetMotionModel(
        sample_size=PIXELS // 2,
        layers_per_block=1,
        down_block_types=("DownBlockMotion", "CrossAttnDownBlockMotion"),
        up_block_types=("CrossAttnUpBlockMotion", "UpBlockMotion"),
        cross_attention_dim=TEXT_WIDTH,
        num_attention_heads=2,
        norm_num_groups=4,
        **blocks,
    )
    adapter = diffusers.MotionAdapter(motion_layers_per_block=1, motion_norm_num_groups=4, **blocks)
    given = harness.build("text2img")
    pipe = diffusers.AnimateDiffPipeline(
        unet=random(unet),
        motion_adapter=adapter,
        vae=given.vae,
        scheduler=given.scheduler,
        text_encoder=None,
        tokenizer=None,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def unet() -> tuple[Any, Call]:
    """Both halves in one batch, of a UNet."""
    pipe = harness.build("text2img")
    return pipe, call_of(pipe, "text2img")


@pytest.mark.parametrize("build", [unet, ltx, flux, wan])
@pytest.mark.parametrize("index", [0, 2])
def test_cut(build: Build, index: int) -> None:
    pipe, call = build()
    check_cut(pipe, call, index=index)
