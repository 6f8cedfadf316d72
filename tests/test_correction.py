"""LatentCorrection: each formula against numpy's, and where it is on."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from unicb import UnsupportedPipelineError, bind
from unicb.callbacks.correction import LatentCorrection
from unicb.pipelines import PipelineFacts
from unicb_numpy.pipelines import ToyPipeline

Array = npt.NDArray[Any]


class Ends:
    """The latents at the end of each step, before or behind a callback."""

    def __init__(self) -> None:
        self.latents: list[Array] = []

    def __call__(self, pipeline: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> None:
        self.latents.append(tensors["latents"].data.astype(np.float64))


def corrected(
    correction: LatentCorrection, pipe: ToyPipeline | None = None, **call: Any
) -> tuple[list[Array], list[Array]]:
    """The latents of each step, as they came and as they went."""
    pipe = pipe or ToyPipeline(dtype="float64")
    before, after = Ends(), Ends()
    pipe(["a", "b"], **call, **bind(pipe, before, correction, after))
    return before.latents, after.latents


def rms(x: Array) -> Array:
    found: Array = np.sqrt((x**2).mean(axis=(1, 2, 3), keepdims=True))
    return found


@pytest.mark.parametrize("strength", [0.25, 1.0, 1])
def test_centre(strength: float) -> None:
    for x, y in zip(*corrected(LatentCorrection(centre=strength)), strict=True):
        means = x.mean(axis=(2, 3), keepdims=True)
        assert np.abs(means).max() > 0.01
        np.testing.assert_allclose(y, x - strength * means, atol=1e-7)


def test_clamp() -> None:
    bent = 0
    for x, y in zip(*corrected(LatentCorrection(clamp=1.5)), strict=True):
        bound, knee = 1.5 * rms(x), 0.875 * 1.5 * rms(x)
        outside = np.abs(x) > knee
        bent += int(outside.sum())
        np.testing.assert_allclose(y[~outside], x[~outside], atol=1e-6)
        over = np.abs(x) - knee
        expected = np.sign(x) * (knee + over / (1 + over / (bound - knee)))
        np.testing.assert_allclose(y[outside], expected[outside], atol=1e-6)
        assert (np.abs(y) < bound).all()
    assert bent > 100


def test_stretch() -> None:
    grown = 0
    for x, y in zip(*corrected(LatentCorrection(stretch=8.0)), strict=True):
        largest = np.abs(x).max(axis=(1, 2, 3), keepdims=True)
        factors = np.maximum(1, 8 * rms(x) / largest)
        grown += int((factors > 1).sum())
        np.testing.assert_allclose(y, x * factors, rtol=1e-6)
    assert grown > 0


def test_all_three_in_order() -> None:
    x, y = corrected(LatentCorrection(centre=1.0, clamp=1.5, stretch=2.5))
    centred = x[0] - x[0].mean(axis=(2, 3), keepdims=True)
    bound, knee = 1.5 * rms(centred), 0.875 * 1.5 * rms(centred)
    over = np.maximum(np.abs(centred) - knee, 0)
    bent = np.sign(centred) * (
        np.minimum(np.abs(centred), knee) + over / (1 + over / (bound - knee))
    )
    # The size is that of before the clamp.
    factors = np.maximum(1, 2.5 * rms(centred) / np.abs(bent).max(axis=(1, 2, 3), keepdims=True))
    np.testing.assert_allclose(y[0], bent * factors, rtol=1e-5, atol=1e-6)


def test_tables_and_functions() -> None:
    """A value holds for the step that ends: progress 0.5 is the end of the fifth of ten."""
    for schedule in ([(0.0, 0.0), (0.5, 1.0)], lambda progress: float(progress >= 0.5)):
        before, after = corrected(LatentCorrection(centre=schedule))
        changed = [not np.array_equal(x, y) for x, y in zip(before, after, strict=True)]
        assert changed == [False] * 4 + [True] * 6


def test_off_leaves_the_latents_alone() -> None:
    plain = ToyPipeline()("x", output_type="latent")
    pipe = ToyPipeline()
    off = LatentCorrection(centre=0.0, clamp=math.inf, stretch=0)
    np.testing.assert_array_equal(plain, pipe("x", output_type="latent", **bind(pipe, off)))


def test_only_whole_steps() -> None:
    before, after = corrected(LatentCorrection(centre=1.0), ToyPipeline(2), num_inference_steps=4)
    changed = [not np.array_equal(x, y) for x, y in zip(before, after, strict=True)]
    assert changed == [False, True, False, True, False, True, True]


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_dtype_is_kept(dtype: str) -> None:
    pipe = ToyPipeline(dtype=dtype)
    dtypes: list[Any] = []

    def note(pipeline: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> None:
        dtypes.append(str(tensors["latents"].dtype))

    correction = LatentCorrection(centre=0.5, clamp=2.0, stretch=3.0)
    found = pipe("x", output_type="latent", **bind(pipe, correction, note))
    assert dtypes == [dtype] * 10
    assert np.isfinite(found).all()


def test_latents_of_zeros() -> None:
    class Zeros(ToyPipeline):
        def encode_prompt(self, prompts: Any) -> Any:
            embeds = super().encode_prompt(prompts)
            return embeds * 0.0

    pipe = Zeros()

    def zero(pipeline: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        return {"latents": tensors["latents"] * 0.0}

    correction = LatentCorrection(centre=1.0, clamp=1.0, stretch=4.0)
    assert not pipe("x", output_type="latent", **bind(pipe, zero, correction)).any()


def test_nothing_to_do() -> None:
    with pytest.raises(ValueError, match="nothing to do"):
        LatentCorrection()


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"centre": 1.5}, ValueError, r"centre must be a strength in 0\.\.1"),
        ({"centre": -0.1}, ValueError, "centre"),
        ({"centre": math.nan}, ValueError, "centre"),
        ({"centre": "1"}, TypeError, "centre must be a number"),
        ({"clamp": 0}, ValueError, "clamp must be a bound above 0"),
        ({"clamp": -4.0}, ValueError, "clamp"),
        ({"clamp": True}, TypeError, "clamp"),
        ({"stretch": -1}, ValueError, "stretch must be a range from 0"),
        ({"stretch": math.inf}, ValueError, "stretch"),
        ({"centre": []}, ValueError, "empty table"),
        ({"centre": [(0.0, 1.0), (0.7, 0.0), (0.4, 1.0)]}, ValueError, "sorted"),
        ({"clamp": [(0.0, 4.0), (1.2, 3.0)]}, ValueError, r"0\.\.1"),
        ({"stretch": [(0.0, 0.0), (0.5, -3.0)]}, ValueError, r"stretch at progress 0\.5"),
    ],
)
def test_bad_values(arguments: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        LatentCorrection(**arguments)


def test_bad_answer_of_a_function(pipe: ToyPipeline) -> None:
    with pytest.raises(ValueError, match=r"centre at progress 0\.1 must be a strength"):
        pipe("x", **bind(pipe, LatentCorrection(centre=lambda progress: 20 * progress)))


@pytest.mark.parametrize("layout", ["b(hw)(cpq)", "bcthw", ""])
def test_refused_layouts(layout: str) -> None:
    class Other(ToyPipeline):
        unicb_facts = PipelineFacts(source="here", denoisers=("unet",), layout=layout)

    with pytest.raises(UnsupportedPipelineError, match="bchw"):
        bind(Other(), LatentCorrection(centre=1.0))
