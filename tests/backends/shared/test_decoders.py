"""Decoders of previews: the frameworks' own pipelines are the truth."""

from __future__ import annotations

import numpy as np
import pytest
import ways
from decoded_runs import assert_same, autoencoder, latents, numbers, pipeline_with, run, tiny, wan
from here import NAME, backend, framework, harness, on

from unicb import UnsupportedPipelineError
from unicb.latents import Layout
from unicb.latents.decoders import decoder_for

#: Where latents, VAEs, or the way from the one to the other differ.
EVERY = [
    ("stable_diffusion", "StableDiffusionPipeline"),
    ("stable_diffusion", "StableDiffusionXLPipeline"),
    ("stable_diffusion", "StableDiffusionLDM3DPipeline"),
    ("flux", "FluxPipeline"),
    ("flux", "Flux2Pipeline"),
    ("flux", "Flux2KleinPipeline (picture)"),
    ("image_transformers", "Ideogram4Pipeline"),
    ("image_transformers", "ErnieImagePipeline"),
    ("image_transformers", "JoyImageEditPipeline (reference)"),
    ("qwen", "QwenImagePipeline"),
    ("qwen", "QwenImage21Pipeline"),
    ("kandinsky5", "Kandinsky5T2IPipeline"),
    ("cascades", "KandinskyV22Pipeline"),
    ("cascades", "StableCascadeDecoderPipeline"),
    ("sana", "SanaPipeline"),
    ("sana", "SanaSprintPipeline"),
    ("animatediff", "AnimateDiffPipeline"),
    ("early_video", "StableVideoDiffusionPipeline"),
    ("cogvideo", "CogVideoXImageToVideoPipeline"),
    ("wan", "WanPipeline"),
    ("wan", "WanAnimatePipeline"),
    ("ltx", "LTXPipeline"),
    ("ltx", "LTX2Pipeline"),
    ("ltx", "LTXConditionPipeline"),
    ("hunyuan_video", "HunyuanVideoPipeline"),
    ("video_transformers", "MochiPipeline"),
    ("video_transformers", "EasyAnimatePipeline"),
]
#: For MindSpore, where runs take long, and not all of the classes are.
SOME = (
    *("StableDiffusionPipeline", "StableDiffusionXLPipeline", "FluxPipeline", "QwenImagePipeline"),
    *("AnimateDiffPipeline", "KandinskyV22Pipeline", "SanaPipeline", "WanPipeline", "LTXPipeline"),
    *("StableVideoDiffusionPipeline", "CogVideoXImageToVideoPipeline"),
)
RUNS = on(torch=EVERY, mindspore=[each for each in EVERY if each[1] in SOME])


@pytest.mark.parametrize(("family", "title"), RUNS)
def test_same_as_the_pipeline(family: str, title: str) -> None:
    assert_same(*run(ways.framework(NAME), family, title))


def test_tiny_autoencoder_gets_what_the_scheduler_has() -> None:
    small = tiny()
    decoder = decoder_for(small, pipeline_with(autoencoder()), None, Layout("bchw"), backend)
    found = decoder.decode(latents(2, 4, 4, 4), None, "middle").tensor
    with backend.fork_rng():
        wanted = numbers(small.decode(latents(2, 4, 4, 4))[0]) * 127.5 + 128
    np.testing.assert_allclose(numbers(found)[:, :, 0], wanted, atol=1e-2)


#: MindSpore has no convolution of bfloat16 on a CPU.
DTYPES = on(torch=("bfloat16", "float16", "float64"), mindspore=("float16",))


@pytest.mark.parametrize("dtype", DTYPES)
def test_vae_of_another_dtype(dtype: str) -> None:
    """It gets latents of its own, and stays of it."""
    vae, its_own = autoencoder().to(getattr(framework, dtype)), latents(2, 4, 4, 4)
    decoder = decoder_for("vae", pipeline_with(vae), None, Layout("bchw"), backend)
    found = decoder.decode(its_own, None, "middle").tensor
    scaled = harness.tensor(numbers(its_own) / vae.config.scaling_factor, dtype)
    with backend.fork_rng():
        wanted = numbers(vae.decode(scaled)[0]).astype(np.float32) * 127.5 + 128
    assert found.dtype == vae.dtype == getattr(framework, dtype)
    assert np.abs(numbers(found)[:, :, 0].astype(np.float32) - wanted).max() <= 2
    assert its_own.dtype == framework.float32


def test_vae_of_another_pipeline_is_refused() -> None:
    pipe = pipeline_with(autoencoder())
    with pytest.raises(UnsupportedPipelineError, match="latents of 16 channels"):
        decoder_for(wan(), pipe, None, Layout("bchw"), backend)
    with pytest.raises(UnsupportedPipelineError, match="VAE of other latents"):
        decoder_for(autoencoder(scaling_factor=0.13025), pipe, None, Layout("bchw"), backend)
    with pytest.raises(UnsupportedPipelineError, match="it has no VAE"):
        decoder_for("vae", pipeline_with(None), None, Layout("bchw"), backend)
    decoder_for(autoencoder(), pipe, None, Layout("bchw"), backend)
