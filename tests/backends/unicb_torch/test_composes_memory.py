"""CFGCutoff beside what saves memory or changes the denoiser's inside.

There need not be a GPU: all that offloads here moves between the CPU and the CPU, or the disk and
the CPU, through the same hooks that would move to a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import cpu_offload
from accelerate.hooks import AlignDevicesHook, add_hook_to_module, remove_hook_from_module
from diffusers.hooks import apply_group_offloading
from test_composes import call_of, check_cut, traces

from unicb import CFGCutoff, bind
from unicb_torch import backend
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


def in_registry(name: str) -> Callable[[Any], bool]:
    def on(pipe: Any) -> bool:
        modules = pipe.unet.modules()
        registries = [m._diffusers_hook for m in modules if hasattr(m, "_diffusers_hook")]
        return any(name in hook for registry in registries for hook in registry.hooks)

    return on


#: How it is switched on, and how one sees that it is.
FEATURES: dict[str, tuple[Callable[[Any], None], Callable[[Any], bool]]] = {
    "model offload": (model_offload, lambda pipe: hasattr(pipe.unet, "_hf_hook")),
    "sequential offload": (sequential_offload, lambda pipe: pipe.unet.conv_in.weight.is_meta),
    "group offload by blocks": (
        group_offload(offload_type="block_level", num_blocks_per_group=1),
        in_registry("group_offloading"),
    ),
    "group offload by leaves": (
        group_offload(offload_type="leaf_level"),
        in_registry("group_offloading"),
    ),
    "attention slicing": (
        attention_slicing,
        lambda pipe: "Sliced" in str(pipe.unet.attn_processors.values()),
    ),
    "FreeU": (free_u, lambda pipe: getattr(pipe.unet.up_blocks[0], "b1", None) == 1.5),
    "layerwise casting": (
        layerwise_casting,
        lambda pipe: pipe.unet.conv_in.weight.dtype == torch.float8_e4m3fn,
    ),
    "channels last": (
        channels_last,
        lambda pipe: pipe.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last),
    ),
    "fused projections": (
        fused_projections,
        lambda pipe: "Fused" in str(pipe.unet.attn_processors.values()),
    ),
}


@pytest.mark.parametrize("kind", ["text2img", "xl-controlnet"])
@pytest.mark.parametrize("feature", FEATURES)
def test_feature(feature: str, kind: str) -> None:
    pipe = harness.build(kind)
    enable, is_on = FEATURES[feature]
    assert not is_on(pipe)
    enable(pipe)
    call = call_of(pipe, kind, prompts=2)
    assert is_on(pipe)
    rows = check_cut(pipe, call)
    assert rows == [4, 4, 2, 2]
    assert is_on(pipe)


def test_offload_switched_on_above_a_hook() -> None:
    """As after a run that failed for lack of memory, while its traceback is kept: taking our hook
    away must not take away what came later."""
    pipe = harness.build("text2img")
    call = call_of(pipe, "text2img")
    plain = call()
    before = traces(pipe)
    calls: list[int] = []

    def passing(call: Any, args: Any, kwargs: Any) -> Any:
        calls.append(1)
        return call(*args, **kwargs)

    remove = backend.hook(pipe.unet, passing)
    add_hook_to_module(pipe.unet, AlignDevicesHook(execution_device=CPU, io_same_device=True))
    offloaded = pipe.unet.forward
    assert np.array_equal(call(), plain)
    seen = len(calls)
    assert seen
    remove()
    assert pipe.unet.forward is offloaded
    check_cut(pipe, call)
    assert pipe.unet.forward is offloaded
    assert len(calls) == seen
    remove_hook_from_module(pipe.unet)
    call(**bind(pipe, CFGCutoff(cutoff_step_index=1)))  # takes the last of us away with it
    assert traces(pipe) == before
    assert np.array_equal(call(), plain)
