"""CFGCutoff beside what saves memory or changes the denoiser's inside.

There need not be a GPU: all that offloads here moves between the CPU and the CPU, or the disk and
the CPU, through the same hooks that would move to a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from accelerate import cpu_offload
from diffusers.hooks import apply_group_offloading
from test_composes import call_of, check_cut

from unicb_torch.harness import harness

CPU = torch.device("cpu")


def model_offload(pipe: Any) -> None:
    pipe.enable_model_cpu_offload(device="cpu")


def sequential_offload(pipe: Any) -> None:
    """As ``enable_sequential_cpu_offload``, which wants an accelerator: the weights are away until
    a layer's call loads them."""
    for name in ("unet", "vae", "controlnet"):
        if (model := getattr(pipe, name, None)) is not None:
            cpu_offload(model, execution_device=CPU)


def group_offload(**options: Any) -> Callable[[Any], None]:
    def enable(pipe: Any) -> None:
        for name in ("unet", "controlnet"):
            if (model := getattr(pipe, name, None)) is not None:
                apply_group_offloading(model, onload_device=CPU, offload_device=CPU, **options)

    return enable


def attention_slicing(pipe: Any) -> None:
    pipe.enable_attention_slicing(1)


def free_u(pipe: Any) -> None:
    pipe.enable_freeu(s1=0.9, s2=0.2, b1=1.5, b2=1.6)


def layerwise_casting(pipe: Any) -> None:
    pipe.unet.enable_layerwise_casting(
        storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32
    )


def channels_last(pipe: Any) -> None:
    pipe.unet.to(memory_format=torch.channels_last)


def fused_projections(pipe: Any) -> None:
    pipe.fuse_qkv_projections()


FEATURES = {
    "model offload": model_offload,
    "sequential offload": sequential_offload,
    "group offload by blocks": group_offload(offload_type="block_level", num_blocks_per_group=1),
    "group offload by leaves": group_offload(offload_type="leaf_level"),
    "attention slicing": attention_slicing,
    "FreeU": free_u,
    "layerwise casting": layerwise_casting,
    "channels last": channels_last,
    "fused projections": fused_projections,
}


@pytest.mark.parametrize("kind", ["text2img", "xl-controlnet"])
@pytest.mark.parametrize("feature", FEATURES)
def test_feature(feature: str, kind: str) -> None:
    pipe = harness.build(kind)
    FEATURES[feature](pipe)
    rows = check_cut(pipe, call_of(pipe, kind, prompts=2))
    assert rows == [4, 4, 2, 2]
