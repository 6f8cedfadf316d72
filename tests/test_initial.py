"""initial_latents, on the toy with the prepare_latents of the frameworks' pipelines."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from unicb import PipelineFacts, UnsupportedPipelineError
from unicb.errors import BackendNotFoundError
from unicb.latents.initial import initial_latents
from unicb_numpy.ops import StrictTensor
from unicb_numpy.pipelines import ToyPipeline


class Starts(ToyPipeline):
    """Starts with latents that it is given, scaled as Stable Diffusion's pipeline does."""

    vae_scale_factor = 8
    sigma = 14.6

    def __init__(self) -> None:
        super().__init__()
        self.vae = SimpleNamespace(config=SimpleNamespace(latent_channels=4))
        self.unet.config = SimpleNamespace(  # type: ignore[attr-defined]
            in_channels=4, out_channels=4, sample_size=16
        )
        self.unet.dtype = np.float32  # type: ignore[attr-defined]

    def prepare_latents(
        self,
        batch_size: int,
        num_channels_latents: int,
        height: int,
        width: int,
        dtype: Any,
        generator: Any,
        latents: Any = None,
    ) -> Any:
        shape = (batch_size, num_channels_latents, height // 8, width // 8)
        if latents is None:
            latents = StrictTensor(np.random.normal(size=shape).astype(dtype))
        return latents * self.sigma

    def __call__(self, *arguments: Any, latents: Any = None, **keywords: Any) -> Any:
        return super().__call__(*arguments, **keywords)


class Packed(Starts):
    """As Flux's."""

    unicb_facts = PipelineFacts(source="here", denoisers=("unet",), layout="b(hw)(cpq)")
    default_sample_size = 8

    def __init__(self) -> None:
        super().__init__()
        self.unet.config.in_channels = 16  # type: ignore[attr-defined]

    def prepare_latents(
        self,
        batch_size: int,
        num_channels_latents: int,
        height: int,
        width: int,
        dtype: Any,
        generator: Any,
        latents: Any = None,
    ) -> Any:
        shape = (batch_size, height * width // 256, 4 * num_channels_latents)
        noise = np.random.normal(size=shape).astype(dtype)
        return StrictTensor(noise) if latents is None else latents, "ids"


def of_a_picture(self: Any, batch_size: int, image: Any, latents: Any = None) -> Any:
    raise AssertionError("is not called")


def test_they_are_numpys() -> None:
    found = initial_latents(Starts(), seed=7, batch=2)
    expected = np.random.default_rng(7).normal(size=(2, 4, 16, 16)).astype(np.float32)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found.data, expected)


def test_a_picture_does_not_depend_on_the_batch() -> None:
    one, three = (initial_latents(Starts(), 3, batch).data for batch in (1, 3))
    np.testing.assert_array_equal(one[0], three[0])
    assert not np.array_equal(three[0], three[1])


def test_size() -> None:
    assert initial_latents(Starts(), 0, height=64, width=32).shape == (1, 4, 8, 4)
    assert initial_latents(Starts(), 0, width=32).shape == (1, 4, 16, 4)
    pipe = Starts()
    pipe.unet.config.sample_size = [8, 24]  # type: ignore[attr-defined]
    assert initial_latents(pipe, 0).shape == (1, 4, 8, 24)


def test_packed() -> None:
    assert initial_latents(Packed(), 0, batch=2).shape == (2, 16, 16)
    assert initial_latents(Packed(), 0, height=32, width=64).shape == (1, 8, 16)
    with pytest.raises(ValueError, match="height must be a multiple of 16 for a Packed, not 24"):
        initial_latents(Packed(), 0, height=24, width=32)


def test_nobodys_random_numbers() -> None:
    np.random.seed(1)
    expected = np.random.normal(size=3)
    np.random.seed(1)
    initial_latents(Starts(), 0)
    np.testing.assert_array_equal(np.random.normal(size=3), expected)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"seed": -1}, ValueError, "seed must be at least 0"),
        ({"seed": 1.0}, TypeError, "seed must be an int"),
        ({"seed": None}, TypeError, "seed"),
        ({"seed": 0, "batch": 0}, ValueError, "batch must be at least 1"),
        ({"seed": 0, "batch": True}, TypeError, "batch"),
        ({"seed": 0, "height": 12}, ValueError, "height must be a multiple of 8"),
        ({"seed": 0, "width": -8}, ValueError, "width must be at least 1"),
        ({"seed": 0, "width": "64"}, TypeError, "width"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        initial_latents(Starts(), **arguments)


def test_given_ones_are_not_scaled() -> None:
    """Where drawn latents are multiplied and given ones are not, the scale of a run to come is
    not known."""

    class Unscaled(Packed):
        unicb_facts = Starts.unicb_facts

        def __init__(self) -> None:
            super().__init__()
            self.unet.config.in_channels = 4  # type: ignore[attr-defined]

        def prepare_latents(
            self, batch_size: int, height: int, width: int, latents: Any = None
        ) -> Any:
            drawn = np.random.normal(size=(batch_size, 4, height // 8, width // 8))
            return StrictTensor(drawn * self.sigma) if latents is None else latents

    with pytest.raises(UnsupportedPipelineError, match="it does not scale both alike"):
        initial_latents(Unscaled(), 0)


def test_starts_from_a_picture() -> None:
    pipe = type("FromPicture", (Starts,), {"prepare_latents": of_a_picture})()
    with pytest.raises(UnsupportedPipelineError, match="its prepare_latents takes image"):
        initial_latents(pipe, 0)


def without(name: str) -> Starts:
    pipe = Starts()
    if name == "size":
        pipe.unet.config.sample_size = None  # type: ignore[attr-defined]
    elif name == "channels":
        pipe.vae.config.latent_channels = 16
    else:
        setattr(pipe, name, None)
    return pipe


@pytest.mark.parametrize(
    ("pipe", "match"),
    [
        (ToyPipeline(), "its __call__ takes no latents"),
        (without("vae"), "latent_channels"),
        (without("unet"), "it has no unet"),
        (without("vae_scale_factor"), "vae_scale_factor"),
        (without("size"), "give height and width"),
        (without("channels"), "has 16 channels, and its denoiser takes 4 and gives 4"),
        (without("prepare_latents"), "it has no prepare_latents"),
    ],
)
def test_cannot_be_told(pipe: Any, match: str) -> None:
    with pytest.raises(UnsupportedPipelineError, match=match):
        initial_latents(pipe, 0)


def test_a_call_that_hands_its_keywords_on() -> None:
    class Passes(Starts):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return super().__call__(*args, **kwargs)

    assert (initial_latents(Passes(), 0).data == initial_latents(Starts(), 0).data).all()


@pytest.mark.parametrize("layout", ["bcthw", ""])
def test_no_picture(layout: str) -> None:
    facts = PipelineFacts(source="here", denoisers=("unet",), layout=layout)
    pipe = type("Video", (Starts,), {"unicb_facts": facts})()
    with pytest.raises(UnsupportedPipelineError, match="Video cannot be made: their layout"):
        initial_latents(pipe, 0)


def test_no_pipeline() -> None:
    with pytest.raises(BackendNotFoundError):
        initial_latents(object(), 0)
