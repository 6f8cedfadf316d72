"""CFGCutoff beside other people's libraries on the same denoiser: they are no stand-ins here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cache_dit
import diffusers
import numpy as np
import pytest
import sdnq
import tomesd
import torch
import ways
from compel import CompelForSD
from DeepCache import DeepCacheSDHelper
from peft import LoraConfig
from shapes_model import CHECKPOINT
from test_composes import DIFFERENT, Reference, call_of, check_cut, error
from torchao.quantization import Int8WeightOnlyConfig, quantize_

from unicb import (
    Callback,
    CFGCutoff,
    GuidanceInterval,
    Interrupt,
    Preview,
    Step,
    UnsupportedPipelineError,
    bind,
)
from unicb_torch.harness import harness
from zoo.entry import CASES

KIND = "text2img"
#: One whose UNet has a block in the middle, which DeepCache looks for.
DEEP = "rescale"


def quantized_by_sdnq(unet: Any) -> None:
    options = {"weights_dtype": "int8", "minimum_allowed_numel": 1, "quant_conv": True}
    sdnq.sdnq_post_load_quant(
        unet, **options, minimum_allowed_channel_size=1, torch_dtype=torch.float32
    )


def quantized_by_torchao(unet: Any) -> None:
    quantize_(unet, Int8WeightOnlyConfig())


@pytest.mark.parametrize("quantize", [quantized_by_sdnq, quantized_by_torchao])
def test_quantized_weights(quantize: Any) -> None:
    pipe = harness.build(KIND)
    plain = call_of(pipe, KIND)()
    quantize(pipe.unet)
    assert error(call_of(pipe, KIND)(), plain) > 0
    check_cut(pipe, call_of(pipe, KIND, prompts=2))


def test_merged_tokens() -> None:
    """tomesd puts classes of its own in the place of the blocks', and a hook before the model."""
    pipe = harness.build(KIND)
    plain = call_of(pipe, KIND)()
    tomesd.apply_patch(pipe, ratio=0.5, max_downsample=8, use_rand=False)
    assert error(call_of(pipe, KIND)(), plain) > DIFFERENT
    check_cut(pipe, call_of(pipe, KIND, prompts=2))


def adapted() -> Any:
    """A pipeline with two LoRAs of random weights."""
    pipe = harness.build(KIND)
    torch.manual_seed(0)
    for name in ("first", "second"):
        config = LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False)
        pipe.unet.add_adapter(config, adapter_name=name)
    return pipe


def test_lora() -> None:
    pipe = adapted()
    pipe.unet.set_adapters(["first", "second"], [0.7, 0.3])
    check_cut(pipe, call_of(pipe, KIND, prompts=2))


def test_lora_that_changes_between_steps() -> None:
    """Before the cut, at it and after it."""
    pipe = adapted()
    call = call_of(pipe, KIND)
    weights = {0: 0.9, 1: 0.2, 2: 0.6}

    class Change(Callback):
        def on_step_end(self, step: Step) -> None:
            if step.index in weights:
                step.pipeline.unet.set_adapters(["first", "second"], [weights[step.index], 0.3])

    def run(*callbacks: Callback) -> Any:
        pipe.unet.set_adapters(["first", "second"], [0.7, 0.3])
        return call(**bind(pipe, *callbacks, Change()))

    plain = run()
    expected = Reference(pipe, 1, None).run(pipe, lambda **more: _both(call, pipe, more, Change()))
    assert error(plain, expected) > DIFFERENT
    assert error(run(CFGCutoff(cutoff_step_index=1)), expected) < 1e-5


def _both(call: Any, pipe: Any, more: dict[str, Any], change: Callback) -> Any:
    """The call with the reference's callback, and with another."""
    pipe.unet.set_adapters(["first", "second"], [0.7, 0.3])
    theirs = more.pop("callback_on_step_end", None)
    more.pop("callback_on_step_end_tensor_inputs", None)
    functions = [] if theirs is None else [theirs]
    return call(**more, **bind(pipe, *functions, change, tensor_inputs=["latents"]))


def test_weighted_prompts() -> None:
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(str(CHECKPOINT))
    pipe.set_progress_bar_config(disable=True)
    weigh = CompelForSD(pipe)
    weighted, plain = (
        weigh(prompt, negative_prompt="a blue ring")
        for prompt in ("a (red)1.5 star on a black background", "a red star on a black background")
    )
    assert not torch.equal(weighted.embeds, plain.embeds)
    keywords = {
        "prompt": None,
        "prompt_embeds": weighted.embeds,
        "negative_prompt_embeds": weighted.negative_embeds,
    }
    check_cut(pipe, call_of(pipe, KIND, **keywords))


def test_deepcache() -> None:
    """It keeps rows; with nothing left out, it goes on."""
    pipe = harness.build(DEEP)
    helper = DeepCacheSDHelper(pipe=pipe)
    helper.set_params(cache_interval=2, cache_branch_id=0)
    helper.enable()
    try:
        call = call_of(pipe, DEEP, guidance_rescale=0.0)
        for callback in (CFGCutoff(0.4), GuidanceInterval(0.4, 1.0)):
            with pytest.raises(UnsupportedPipelineError, match="DeepCache"):
                bind(pipe, callback)
        frames: list[Any] = []
        plain = call()
        assert np.array_equal(call(**bind(pipe, Preview(frames))), plain)
        assert len(frames) == 4
        call(**bind(pipe, Interrupt(1)))
    finally:
        helper.disable()
    check_cut(pipe, call_of(pipe, DEEP))


TITLE = "LTXPipeline"


@pytest.fixture
def cached() -> Iterator[Any]:
    pipe = ways.pipeline("torch", TITLE)
    yield pipe
    cache_dit.disable_cache(pipe)


def enable_cache_dit(pipe: Any) -> None:
    config = cache_dit.DBCacheConfig(Fn_compute_blocks=1, Bn_compute_blocks=0)
    cache_dit.enable_cache(pipe, cache_config=config)


def test_cache_dit(cached: Any) -> None:
    enable_cache_dit(cached)
    for callback in (CFGCutoff(0.4), GuidanceInterval(0.4, 1.0)):
        with pytest.raises(UnsupportedPipelineError, match="cache-dit"):
            bind(cached, callback)
    bind(cached, Interrupt(1))
    cache_dit.disable_cache(cached)
    bind(cached, CFGCutoff(0.4))


def test_cache_dit_that_is_enabled_between_two_runs(cached: Any) -> None:
    """Of one binding: the first run is cut, the second refused."""
    fx, entry = ways.framework("torch"), ways.all_entries("torch")[TITLE]
    callbacks = bind(cached, CFGCutoff(cutoff_step_index=1))

    def call() -> Any:
        return callbacks(**entry.arguments(fx, cached, CASES["one prompt"]))

    call()
    enable_cache_dit(cached)
    with pytest.raises(UnsupportedPipelineError, match="cache-dit"):
        call()
