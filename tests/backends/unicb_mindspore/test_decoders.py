"""Decoders of previews on MindSpore: mindone's own pipelines are the truth."""

from __future__ import annotations

from functools import cache
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from decoded_runs import assert_same, run

from unicb import UnsupportedPipelineError
from unicb.latents import Layout
from unicb.latents.decoders import decoder_for
from unicb_mindspore import backend
from zoo.framework import Framework, MindSpore

#: Where latents, VAEs, or the way from the one to the other differ.
RUNS = [
    ("stable_diffusion", "StableDiffusionPipeline"),
    ("stable_diffusion", "StableDiffusionXLPipeline"),
    ("flux", "FluxPipeline"),
    ("qwen", "QwenImagePipeline"),
    ("animatediff", "AnimateDiffPipeline"),
    ("cascades", "KandinskyV22Pipeline"),
    ("sana", "SanaPipeline"),
    ("early_video", "StableVideoDiffusionPipeline"),
    ("cogvideo", "CogVideoXImageToVideoPipeline"),
    ("wan", "WanPipeline"),
    ("ltx", "LTXPipeline"),
]


@cache
def fx() -> Framework:
    return MindSpore()


@pytest.mark.parametrize(("family", "title"), RUNS)
def test_same_as_the_pipeline(family: str, title: str) -> None:
    assert_same(*run(fx(), family, title))


class Pipeline:
    """As far as a decoder looks at it."""

    vae: Any = None


def pipeline_with(vae: Any) -> Pipeline:
    made = Pipeline()
    made.vae = vae
    return made


def tiny() -> Any:
    return fx().model(
        "AutoencoderTiny",
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    )


def autoencoder(**more: Any) -> Any:
    return fx().model(
        "AutoencoderKL",
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        norm_num_groups=4,
        **more,
    )


def latents(*shape: int) -> Any:
    return ms.Tensor(np.random.default_rng(1).normal(size=shape).astype(np.float32))


def numbers(tensor: Any) -> Any:
    return backend.ops.to_numpy(tensor)


def test_tiny_autoencoder_gets_what_the_scheduler_has() -> None:
    small = tiny()
    decoder = decoder_for(small, pipeline_with(autoencoder()), None, Layout("bchw"), backend)
    found = decoder.decode(latents(2, 4, 4, 4), None, "middle").tensor
    wanted = numbers(small.decode(latents(2, 4, 4, 4))[0]) * 127.5 + 128
    np.testing.assert_allclose(numbers(found)[:, :, 0], wanted, atol=1e-2)


def test_nothing_is_left_changed() -> None:
    vae = autoencoder()
    state = {value.name: value.asnumpy().copy() for value in vae.get_parameters()}
    attributes = dict(vars(vae))
    decoder = decoder_for("vae", pipeline_with(vae), None, Layout("bchw"), backend)
    ms.manual_seed(5)
    np.random.seed(5)
    wanted = ms.mint.randn(3).asnumpy(), np.random.normal()
    ms.manual_seed(5)
    np.random.seed(5)

    def draws(x: Any) -> Any:
        ms.mint.randn(3)
        np.random.normal()
        return x[:, :3]

    for made in (decoder, decoder_for(draws, pipeline_with(vae), None, Layout("bchw"), backend)):
        made.decode(latents(2, 4, 4, 4), None, "middle")
    np.testing.assert_array_equal(ms.mint.randn(3).asnumpy(), wanted[0])
    assert np.random.normal() == wanted[1]
    assert all(np.array_equal(v.asnumpy(), state[v.name]) for v in vae.get_parameters())
    assert vars(vae) == attributes


def test_vae_of_another_dtype() -> None:
    """It gets latents of its own, and stays of it."""
    dtype = ms.float16  # there is no convolution of bfloat16 on a CPU
    vae = autoencoder().to(dtype)
    decoder = decoder_for("vae", pipeline_with(vae), None, Layout("bchw"), backend)
    found = decoder.decode(latents(2, 4, 4, 4), None, "middle").tensor
    scaled = ms.Tensor(latents(2, 4, 4, 4) / vae.config.scaling_factor, dtype)
    wanted = numbers(vae.decode(scaled)[0]).astype(np.float32) * 127.5 + 128
    assert found.dtype == dtype
    assert np.abs(numbers(found)[:, :, 0].astype(np.float32) - wanted).max() <= 2
    assert vae.dtype == dtype


def video_vae(class_name: str) -> Any:
    own = {
        "AutoencoderKLWan": {"base_dim": 4, "z_dim": 16, "dim_mult": [1, 1, 1, 1]},
        "AutoencoderKLMagvit": {
            "latent_channels": 16,
            "block_out_channels": [8, 8, 8, 8],
            "layers_per_block": 1,
            "norm_num_groups": 4,
        },
    }
    more = {"num_res_blocks": 1} if class_name == "AutoencoderKLWan" else {}
    return fx().model(class_name, **own[class_name], **more)


@pytest.mark.parametrize("class_name", ["AutoencoderKLWan", "AutoencoderKLMagvit"])
def test_video_that_follows_a_preview(class_name: str) -> None:
    """mindone's Magvit keeps frames of one video for the next: of previews, it must not."""
    vae, fresh = video_vae(class_name), video_vae(class_name)
    ms.load_param_into_net(fresh, {p.name: p for p in vae.get_parameters()})
    attributes = dict(vars(vae))
    decoder = decoder_for(vae, pipeline_with(None), None, Layout("bcthw"), backend)
    shown = [decoder.decode(latents(1, 16, 3, 4, 4), None, "animation").tensor for _ in range(2)]
    assert vars(vae) == attributes
    np.testing.assert_allclose(numbers(shown[0]), numbers(shown[1]), atol=1e-2)
    found, wanted = (numbers(v.decode(latents(1, 16, 2, 4, 4))[0]) for v in (vae, fresh))
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert wanted.std() > 0.01


def test_refusals() -> None:
    pipe = pipeline_with(autoencoder())
    with pytest.raises(UnsupportedPipelineError, match="latents of 16 channels"):
        decoder_for(video_vae("AutoencoderKLWan"), pipe, None, Layout("bchw"), backend)
    with pytest.raises(UnsupportedPipelineError, match="VAE of other latents"):
        decoder_for(autoencoder(scaling_factor=0.13), pipe, None, Layout("bchw"), backend)
    with pytest.raises(UnsupportedPipelineError, match="it has no VAE"):
        decoder_for("vae", pipeline_with(None), None, Layout("bchw"), backend)
