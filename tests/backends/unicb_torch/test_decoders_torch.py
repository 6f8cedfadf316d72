"""Decoders of previews in runs of diffusers' pipelines, offloaded VAEs, and those of videos."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import ways
from decoded_runs import Decodes, assert_same, autoencoder, magvit, run, tiny, wan
from diffusers import (
    AutoencoderKLTemporalDecoder,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)

from unicb import UnsupportedPipelineError, bind
from unicb.latents import Layout
from unicb.latents.decoders import decoder_for
from unicb_torch import backend


@pytest.mark.parametrize("name", ["CosmosTextToWorldPipeline", "Cosmos2VideoToWorldPipeline"])
def test_cosmos(name: str) -> None:
    """Its check of what is shown makes bytes of the pictures, which it does not round."""
    assert_same(*run(ways.framework("torch"), "cosmos", name), tolerance=1.01)


def diffusion(vae: Any, kind: Any = StableDiffusionPipeline, **more: Any) -> Any:
    torch.manual_seed(2)
    unet = UNet2DConditionModel(
        block_out_channels=(8,),
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=8,
        attention_head_dim=2,
        sample_size=8,
        mid_block_type=None,
    ).eval()
    names = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
    parts = {name: None for name in names if kind is not StableDiffusionPipeline or "2" not in name}
    if kind is StableDiffusionPipeline:
        parts |= {"safety_checker": None, "feature_extractor": None}
        more["requires_safety_checker"] = False
    made = kind(
        vae=vae,
        unet=unet,
        scheduler=DDIMScheduler(steps_offset=1, clip_sample=False),
        **parts,
        **more,
    )
    made.set_progress_bar_config(disable=True)
    return made


def call(pipe: Any, **more: Any) -> Any:
    embeds = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(4)
    out = pipe(
        prompt_embeds=embeds.to(pipe.unet.dtype),
        guidance_scale=1.0,
        num_inference_steps=3,
        height=16,
        width=16,
        generator=generator,
        output_type="np",
        **more,
    )
    return out.images * 255


def test_tiny_autoencoder_in_place_of_the_vae() -> None:
    """As good as a pipeline that has it for its own; and the pipeline goes on with its own."""
    small = tiny()
    wanted = call(diffusion(small))
    pipe = diffusion(autoencoder())
    plain = call(pipe)
    looks = Decodes(small)
    finished = call(pipe, **bind(pipe, looks))
    np.testing.assert_array_equal(finished, plain)
    assert np.abs(looks.whole[:, 0] - wanted).max() <= 0.51
    assert np.abs(looks.whole[:, 0] - plain).max() > 5


def test_function_by_hand() -> None:
    vae = autoencoder(scaling_factor=0.4)
    pipe = diffusion(vae)

    def by_hand(latents: torch.Tensor) -> torch.Tensor:
        assert not torch.is_grad_enabled()
        return vae.decode(latents / 0.4).sample

    looks = Decodes(by_hand)
    finished = call(pipe, **bind(pipe, looks))
    assert np.abs(looks.whole[:, 0] - finished).max() <= 0.51


def test_nothing_is_left_changed() -> None:
    vae = autoencoder()
    vae.enable_slicing()
    pipe = diffusion(vae)
    state = {name: value.clone() for name, value in vae.state_dict().items()}
    attributes = dict(vars(vae))
    made = decoder_for("vae", pipe, None, Layout("bchw"), backend)
    torch.manual_seed(6)
    wanted = torch.get_rng_state()
    latents = torch.zeros(2, 4, 8, 8, requires_grad=True)
    found = made.decode(latents, None, "middle")
    assert found.tensor is not None
    assert not found.tensor.requires_grad
    assert torch.equal(torch.get_rng_state(), wanted)
    assert all(torch.equal(value, state[name]) for name, value in vae.state_dict().items())
    assert vars(vae) == attributes
    assert all(parameter.grad is None for parameter in vae.parameters())


def test_float16_that_the_pipeline_would_widen() -> None:
    """``force_upcast`` is the default, and only pipelines like SDXL's heed it."""
    vae = autoencoder().half()
    assert vae.config.force_upcast
    decoder_for("vae", diffusion(vae), None, Layout("bchw"), backend)
    pipe = diffusion(vae, StableDiffusionXLPipeline, add_watermarker=False)
    with pytest.raises(UnsupportedPipelineError, match=r"overflows in float16.*load it in float32"):
        decoder_for("vae", pipe, None, Layout("bchw"), backend)
    decoder_for(tiny(), pipe, None, Layout("bchw"), backend)
    vae.float()
    decoder_for("vae", pipe, None, Layout("bchw"), backend)


def test_offloaded_by_accelerate() -> None:
    """A call of the VAE would take the denoiser from the device."""
    from accelerate import cpu_offload_with_hook
    from accelerate.hooks import AlignDevicesHook, add_hook_to_module, remove_hook_from_module

    pipe = diffusion(autoencoder())
    cpu_offload_with_hook(pipe.vae, "cpu")
    with pytest.raises(UnsupportedPipelineError, match="offloaded"):
        decoder_for("vae", pipe, None, Layout("bchw"), backend)
    remove_hook_from_module(pipe.vae)
    add_hook_to_module(pipe.vae, AlignDevicesHook("cpu", offload=False))
    decoder_for("vae", pipe, None, Layout("bchw"), backend)


def test_frame_in_the_middle_is_decoded_alone() -> None:
    vae = wan()
    made = decoder_for(vae, diffusion(None), None, Layout("bcthw"), backend)
    latents = torch.randn(2, 16, 5, 4, 4, generator=torch.Generator().manual_seed(1))
    found = made.decode(latents, None, "middle").tensor
    mean, std = (
        torch.tensor(getattr(vae.config, f"latents_{which}")).view(1, -1, 1, 1, 1)
        for which in ("mean", "std")
    )
    with torch.no_grad():
        alone = vae.decode(latents[:, :, 2:3] * std + mean).sample
    assert found is not None
    torch.testing.assert_close(found, alone * 127.5 + 128, atol=1e-3, rtol=0)


def test_vae_that_is_told_how_many_frames_there_are() -> None:
    torch.manual_seed(0)
    vae = AutoencoderKLTemporalDecoder(
        block_out_channels=(32, 32), down_block_types=("DownEncoderBlock2D",) * 2
    ).eval()
    made = decoder_for(vae, diffusion(None), None, Layout("btchw"), backend)
    latents = torch.randn(2, 5, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    found = made.decode(latents, None, "strip").tensor
    with torch.no_grad():
        whole = vae.decode(latents.flatten(0, 1) / vae.config.scaling_factor, num_frames=5).sample
    assert found is not None
    wanted = whole.unflatten(0, (2, 5)).swapaxes(1, 2) * 127.5 + 128
    torch.testing.assert_close(found, wanted, atol=1e-3, rtol=0)


def test_caches_of_video_vaes() -> None:
    """Wan's keeps a list on itself; EasyAnimate's keeps frames in its layers."""
    easy, latents = (
        magvit(),
        torch.randn(1, 16, 2, 4, 4, generator=torch.Generator().manual_seed(1)),
    )
    for vae in (wan(), easy):
        attributes = dict(vars(vae))
        decoder = decoder_for(vae, diffusion(None), None, Layout("bcthw"), backend)
        decoder.decode(latents, None, "animation")
        assert vars(vae) == attributes
    kept = [m for m in easy.modules() if hasattr(m, "prev_features")]
    assert kept
    kept[0].prev_features = latents
    decoder.decode(latents, None, "animation")
    assert kept[0].prev_features is latents
    assert all(m.prev_features is None for m in kept[1:])
