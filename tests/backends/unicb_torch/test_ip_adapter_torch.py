"""IPAdapterScale and IPAdapterCutoff beside masks, offloading, compiling, and diffusers' own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ip_adapter_runs as runs
import numpy as np
import pytest
import torch
from diffusers.callbacks import IPAdapterScaleCutoffCallback
from diffusers.hooks import apply_group_offloading
from test_composes import call_of
from test_composes_compile import with_ip_adapter

from unicb import UnsupportedPipelineError, bind
from unicb.callbacks.ip_adapter import IPAdapterCutoff, IPAdapterScale
from unicb.testing.tiny import IMAGE_WIDTH
from unicb_torch.harness import harness
from unicb_torch.pipelines import ip_adapter

CPU = torch.device("cpu")
STYLE = {"up": {"block_0": [0.0, 1.0]}}


def counted(pipe: Any) -> list[int]:
    """Grows by one with every use of an adapter's weights."""
    calls: list[int] = []
    for processor in runs.processors(pipe):
        for keys in processor.to_k_ip:
            keys.register_forward_pre_hook(lambda *_: calls.append(1))
    return calls


def test_what_is_cut_off_costs_nothing() -> None:
    pipe = harness.build("ip-adapter")
    calls = counted(pipe)
    call = call_of(pipe, "ip-adapter")
    call()
    each = len(calls) // 4
    assert each == len(runs.processors(pipe))
    calls.clear()
    call(**bind(pipe, IPAdapterCutoff(0.25)))
    assert len(calls) == 2 * each


def test_blocks() -> None:
    pipe = harness.build("ip-adapter")
    call = call_of(pipe, "ip-adapter")

    def by_hand(pipeline: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> None:
        if index == 1:
            pipeline.set_ip_adapter_scale(STYLE)

    wanted = call(**bind(pipe, by_hand))
    assert sorted(np.unique(runs.scales(pipe))) == [0.0, 1.0]
    pipe.set_ip_adapter_scale(1.0)
    before = call()
    found = call(**bind(pipe, IPAdapterScale([(0.0, 1.0), (0.5, STYLE)])))
    assert np.array_equal(found, wanted)
    assert not np.allclose(found, before)
    assert set(np.ravel(runs.scales(pipe))) == {1.0}


def test_masks_with_a_scale_for_each_picture() -> None:
    """Lists within lists, which no number can put back."""
    pipe = harness.build("ip-adapter")
    pipe.set_ip_adapter_scale([[0.3, 0.9]])
    before = runs.scales(pipe)
    half = torch.zeros(1, 2, 16, 16)
    half[:, 0, :, :8] = half[:, 1, :, 8:] = 1
    embeds = torch.randn(2, 2, IMAGE_WIDTH, generator=torch.Generator().manual_seed(2))
    masks = {"cross_attention_kwargs": {"ip_adapter_masks": [half]}}
    call = call_of(pipe, "ip-adapter", ip_adapter_image_embeds=[embeds], **masks)
    full = call()
    # What such a scale is written as in a table: a list of one for each adapter.
    schedule = [(0.0, [[0.3, 0.9]]), (0.5, [[0.0, 0.9]])]
    found = call(**bind(pipe, IPAdapterScale(schedule)))
    assert not np.allclose(found, full)
    assert runs.scales(pipe) == before
    assert np.array_equal(call(), full)


def group_offload(pipe: Any) -> None:
    apply_group_offloading(
        pipe.unet,
        onload_device=CPU,
        offload_device=CPU,
        offload_type="block_level",
        num_blocks_per_group=1,
    )


# Not sequential offloading: with an IP-Adapter, diffusers 0.42.1 itself fails under it.
OFFLOADS: dict[str, Callable[[Any], Any]] = {
    "model": lambda pipe: pipe.enable_model_cpu_offload(device="cpu"),
    "group": group_offload,
}


@pytest.mark.parametrize("offload", OFFLOADS)
def test_beside_offloading(offload: str) -> None:
    schedule = IPAdapterScale([(0.0, 1.0), (0.5, STYLE), (0.75, 0.0)])
    pipe = harness.build("ip-adapter")
    wanted = call_of(pipe, "ip-adapter")(**bind(pipe, schedule))
    pipe = harness.build("ip-adapter")
    OFFLOADS[offload](pipe)
    found = call_of(pipe, "ip-adapter")(**bind(pipe, schedule))
    assert np.array_equal(found, wanted)
    assert set(np.ravel(runs.scales(pipe))) == {1.0}


def test_a_compiled_unet() -> None:
    """Its graph has the scales in it, and is made anew for another."""
    schedule = IPAdapterScale([(0.0, 1.0), (0.5, 0.3), (0.75, 0.0)])
    pipe = with_ip_adapter()
    wanted = call_of(pipe, "ip-adapter")(**bind(pipe, schedule))
    pipe = with_ip_adapter()
    pipe.unet = torch.compile(pipe.unet, backend="eager")
    found = call_of(pipe, "ip-adapter")(**bind(pipe, schedule))
    assert np.allclose(found, wanted, atol=1e-5)
    assert set(np.ravel(runs.scales(pipe))) == {1.0}


@pytest.mark.parametrize("fails", ["callback", "denoiser"])
def test_put_back_after_an_error(fails: str) -> None:
    pipe = harness.build("ip-adapter")
    pipe.set_ip_adapter_scale(0.6)
    before = runs.scales(pipe)
    counts, look = list[int](), runs.Look()

    def raising(*_: Any) -> None:
        counts.append(1)
        if len(counts) == 3:
            assert set(np.ravel(look.seen[-1])) == {0.0}
            raise RuntimeError("the third")

    more = [look, raising] if fails == "callback" else [look]
    if fails == "denoiser":
        pipe.unet.mid_block.register_forward_pre_hook(raising)
    try:
        call_of(pipe, "ip-adapter")(**bind(pipe, IPAdapterCutoff(0.0), *more))
    except RuntimeError as error:
        assert str(error) == "the third"  # noqa: PT017
    else:
        pytest.fail("the run did not fail")
    assert runs.scales(pipe) == before


def test_transformers_take_layers_and_no_blocks() -> None:
    flux = runs._parts("torch", "FluxPipeline (ip-adapter)")[2]
    layers = len(runs.processors(flux))
    before = runs.scales(flux)
    with pytest.raises(TypeError, match="takes no dict of blocks"):
        bind(flux, IPAdapterScale({"up": 1.0}))
    with pytest.raises(ValueError, match=f"takes a number, or {layers} numbers"):
        bind(flux, IPAdapterScale([0.5] * (layers + 1)))
    each = [0.5 + 0.1 * i for i in range(layers)]
    look = runs.Look()
    first = [scale for (scale,) in before]
    schedule = IPAdapterScale([(0.0, first), (0.5, each)])

    runs.latents("torch", "FluxPipeline (ip-adapter)", schedule, look)
    assert look.seen[0] == before
    assert look.seen[1] == [[scale] for scale in each]
    assert runs.scales(flux) == before


def test_stable_diffusion_3_called_with_scale_0() -> None:
    """It leaves the picture out for the whole run, whatever the scale is later."""
    title = "StableDiffusion3Pipeline (IP-Adapter)"
    pipe = runs._parts("torch", title)[2]
    with pytest.raises(TypeError, match="scale of StableDiffusion3Pipeline is a number"):
        bind(pipe, IPAdapterScale([0.5]))
    pipe.set_ip_adapter_scale(0.0)
    with pytest.raises(UnsupportedPipelineError, match=r"called without an image .* or with scale"):
        runs.latents("torch", title, IPAdapterScale(lambda p: p), ip_adapter_image_embeds=None)
    assert set(runs.scales(pipe)) == {0.0}
    # With embeddings it takes them in at scale 0 too.
    full = runs.latents("torch", title)
    assert not np.allclose(runs.latents("torch", title, IPAdapterScale(lambda p: p)), full)
    assert set(runs.scales(pipe)) == {0.0}


def test_what_the_official_callback_does() -> None:
    """docs/callbacks/ip_adapter.md says so."""
    official = IPAdapterScaleCutoffCallback(cutoff_step_ratio=0.25)
    pipe = harness.build("ip-adapter")
    call = call_of(pipe, "ip-adapter")
    first = call(callback_on_step_end=official)
    assert set(np.ravel(runs.scales(pipe))) == {0.0}
    assert not np.allclose(call(callback_on_step_end=official), first)

    pipe.set_ip_adapter_scale(1.0)
    assert np.array_equal(call(**bind(pipe, IPAdapterCutoff(0.25))), first)
    assert np.array_equal(call(**bind(pipe, IPAdapterCutoff(0.25))), first)

    pipe = harness.build("ip-adapter")
    del pipe.unet.encoder_hid_proj
    pipe.unet.encoder_hid_proj = None
    pipe.unet.set_default_attn_processor()
    pipe.unet._load_ip_adapter_weights([ip_adapter(pipe.unet), ip_adapter(pipe.unet)])
    embeds = call_of(pipe, "ip-adapter")
    pictures = [torch.ones(2, 1, IMAGE_WIDTH), torch.ones(2, 1, IMAGE_WIDTH)]
    with pytest.raises(ValueError, match="Cannot assign 1 scale_configs to 2 IP-Adapter"):
        embeds(callback_on_step_end=official, ip_adapter_image_embeds=pictures)
    embeds(ip_adapter_image_embeds=pictures, **bind(pipe, IPAdapterCutoff(0.25)))

    without = call_of(harness.build("text2img"), "text2img")
    assert np.array_equal(without(callback_on_step_end=official), without())
