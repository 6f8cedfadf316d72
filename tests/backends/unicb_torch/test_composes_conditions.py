"""CFGCutoff beside other conditions than text, and changed weights."""

from __future__ import annotations

from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from test_composes import DIFFERENT, STEPS, call_of, check_cut, error, normal

from unicb import CFGCutoff, UnsupportedPipelineError, bind
from unicb.testing import Case
from unicb.testing.tiny import IMAGE_WIDTH, PIXELS
from unicb_torch.harness import harness
from unicb_torch.pipelines import ip_adapter


@pytest.mark.parametrize("kind", ["rescale", "xl-rescale"])
def test_guidance_rescale(kind: str) -> None:
    """The loop scales its sum to the standard deviation of the conditional half. What that does
    to a sum of two equal halves is the loop's affair, and the same in both runs."""
    pipe = harness.build(kind)
    check_cut(pipe, call_of(pipe, kind, prompts=2))


@pytest.mark.parametrize("kind", ["ip-adapter", "xl-ip-adapter"])
def test_ip_adapter(kind: str) -> None:
    pipe = harness.build(kind)
    pipe.set_ip_adapter_scale(0.6)
    check_cut(pipe, call_of(pipe, kind))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", ["ip-adapter", "xl-ip-adapter"])
def test_several_ip_adapters(kind: str, masked: bool) -> None:
    """Each with a scale of its own, and with as many pictures as there are rows in a guided batch;
    with masks too, which have a first axis that is no batch."""
    pipe = harness.build(kind)
    del pipe.unet.encoder_hid_proj
    pipe.unet.encoder_hid_proj = None
    pipe.unet.set_default_attn_processor()
    pipe.unet._load_ip_adapter_weights([ip_adapter(pipe.unet), ip_adapter(pipe.unet)])
    pipe.set_ip_adapter_scale([0.3, 0.9])
    embeds = [normal(2, 1, IMAGE_WIDTH), normal(2, 2, IMAGE_WIDTH, seed=2)]
    more: dict[str, Any] = {"ip_adapter_image_embeds": embeds}
    if masked:
        half = torch.zeros(1, 2, PIXELS, PIXELS)
        half[:, 0, :, : PIXELS // 2] = half[:, 1, :, PIXELS // 2 :] = 1
        more["cross_attention_kwargs"] = {"ip_adapter_masks": [half[:, :1], half]}
    check_cut(pipe, call_of(pipe, kind, **more))


@pytest.mark.parametrize("kind", ["controlnet-multi", "xl-controlnet-multi"])
def test_several_controlnets(kind: str) -> None:
    """With scales of their own; the second one stops before the cut, or starts after it."""
    pipe = harness.build(kind)
    scales = {"controlnet_conditioning_scale": [0.8, 0.4]}
    for start, end in (([0.0, 0.0], [1.0, 0.25]), ([0.0, 0.75], [1.0, 1.0])):
        guided = {"control_guidance_start": start, "control_guidance_end": end}
        check_cut(pipe, call_of(pipe, kind, images=2, **scales, **guided))


@pytest.mark.parametrize(
    "name", ["StableDiffusionAdapterPipeline", "StableDiffusionXLAdapterPipeline"]
)
def test_t2i_adapter(name: str) -> None:
    """diffusers gives these loops no callback at the end of a step: it has to be the call form."""
    xl = "XL" in name
    parts = dict(harness.build("xl-text2img" if xl else "text2img").components)
    kind = getattr(diffusers, name)
    parts["adapter"] = diffusers.T2IAdapter(channels=[8, 16], num_res_blocks=1, downscale_factor=2)
    if not xl:
        parts["requires_safety_checker"] = False
    parts.pop("image_encoder", None)
    pipe = kind(**parts)
    pipe.set_progress_bar_config(disable=True)
    arguments = harness.arguments(Case("xl-text2img" if xl else "text2img", prompts=2, steps=STEPS))
    keywords = {**arguments, "guidance_scale": 5.0, "image": normal(2, 3, PIXELS, PIXELS)}

    def latents(call: Any) -> Any:
        generator = torch.Generator().manual_seed(0)
        return call(**keywords, generator=generator, output_type="latent")[0].numpy()

    calls: list[int] = []

    def overwrite(model: Any, args: Any, out: Any) -> Any:
        calls.append(len(args[0]))
        return (torch.cat([out[0].chunk(2)[1]] * 2),) if len(calls) > 2 else out

    plain = latents(pipe)
    handle = pipe.unet.register_forward_hook(overwrite)
    expected = latents(pipe)
    handle.remove()
    callbacks = bind(pipe, CFGCutoff(cutoff_step_index=1))
    with pytest.raises(UnsupportedPipelineError, match=r"takes no .*callbacks\(prompt, \.\.\.\)"):
        pipe(**keywords, **callbacks)
    rows: list[int] = []
    first = pipe.unet.conv_in
    handle = first.register_forward_hook(lambda model, args, out: rows.append(len(args[0])))
    cut = latents(callbacks)
    handle.remove()
    assert rows == [4, 4, 2, 2]
    assert error(plain, expected) > DIFFERENT
    assert error(cut, expected) < 1e-5
    assert np.array_equal(latents(pipe), plain)


class LowRank(torch.nn.Module):
    """A linear layer with a low-rank change beside it, as LoRA's layers are (peft, which loads
    such files, only puts modules like this one in the place of the model's own)."""

    def __init__(self, base: torch.nn.Linear, rank: int = 2) -> None:
        super().__init__()
        self.base = base
        self.down = torch.nn.Linear(base.in_features, rank, bias=False)
        self.up = torch.nn.Linear(rank, base.out_features, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        changed: torch.Tensor = self.base(x) + 0.5 * self.up(self.down(x))
        return changed


@pytest.mark.parametrize("kind", ["text2img", "xl-text2img"])
def test_low_rank_change(kind: str) -> None:
    pipe = harness.build(kind)
    call = call_of(pipe, kind, prompts=2)
    without = call()
    torch.manual_seed(3)
    for module in list(pipe.unet.modules()):
        if isinstance(module, diffusers.models.attention_processor.Attention):
            module.to_q, module.to_v = LowRank(module.to_q), LowRank(module.to_v)
    assert error(call(), without) > DIFFERENT
    check_cut(pipe, call)
