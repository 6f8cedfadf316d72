"""Previews of inpainting, on the reference backend: the given part is shown as it is given."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from unicb import PipelineFacts, Preview, PreviewFrame, bind
from unicb.latents import builtin_formats, to_rgb
from unicb.latents.denoised import LazyDenoised
from unicb.latents.schedules import SchedulerFacts
from unicb_numpy import backend
from unicb_numpy.ops import StrictTensor
from unicb_numpy.pipelines import ToyPipeline, ToyScheduler

ROWS, STEPS = 2, 5
SHAPE = (ROWS, 4, 8, 8)
FORM = builtin_formats()["sd"]
REGION = ("init_mask", "image_latents")


class Keeps(ToyScheduler):
    """A scheduler that keeps x0, which is never what the picture's given part is."""

    unicb_facts = SchedulerFacts(source="this file", kept="model_outputs", kept_is="x0")

    def __init__(self) -> None:
        super().__init__()
        self.model_outputs: list[Any] = []
        self.step_index = 0
        self.config = SimpleNamespace()

    def step(self, noise: StrictTensor, timestep: float, sample: StrictTensor) -> StrictTensor:
        self.model_outputs = [StrictTensor(np.full_like(sample.data, 0.5))]
        self.step_index += 1
        return super().step(noise, timestep, sample)


class Inpainting(ToyPipeline):
    """A loop that puts the given half of a picture back after each step."""

    unicb_facts = PipelineFacts(
        source="this file", denoisers=("unet",), cfg="none", latents="sd", known_region=REGION
    )

    def __init__(self, given: Any, mask: Any) -> None:
        super().__init__()
        self.scheduler = Keeps()
        self.given, self.mask = given, mask

    def __call__(  # type: ignore[override]
        self,
        callback_on_step_end: Any = None,
        callback_on_step_end_tensor_inputs: Any = ("latents",),
    ) -> Any:
        self._guidance_scale, self._interrupt = 1.0, False
        timesteps = self.scheduler.set_timesteps(STEPS)
        self._num_timesteps = len(timesteps)
        embeds = self.encode_prompt(["a prompt"] * ROWS)
        image_latents, init_mask = self.given, self.mask
        noise = np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)
        latents = StrictTensor(noise)
        for i, t in enumerate(timesteps):
            latents = self.scheduler.step(self.unet(latents, t, embeds), t, latents)
            if isinstance(init_mask, StrictTensor):
                level = 1 - (i + 1) / STEPS
                known = image_latents.data + level * noise
                painted = init_mask.data * latents.data
                latents = StrictTensor((1 - init_mask.data) * known + painted)
            if callback_on_step_end is not None:
                outputs = callback_on_step_end(self, i, t, {"latents": latents})
                latents = outputs.pop("latents")
        return latents.data


def given_picture() -> StrictTensor:
    return StrictTensor(np.random.default_rng(2).normal(size=SHAPE).astype(np.float32))


def right_half() -> StrictTensor:
    mask = np.zeros((ROWS, 1, 8, 8), np.float32)
    mask[..., 4:] = 1
    return StrictTensor(mask)


def previews(pipe: Inpainting) -> tuple[list[Any], Any]:
    frames: list[PreviewFrame] = []
    result = pipe(**bind(pipe, Preview(frames)))
    assert [frame.source for frame in frames] == ["exact"] * STEPS
    return [np.stack([np.asarray(x) for x in frame.images]) for frame in frames], result


def colours(latents: StrictTensor) -> Any:
    return to_rgb(latents, FORM, backend.ops).pixels


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_merged_are_both_to_the_bit(dtype: str) -> None:
    x0, known = (
        StrictTensor(x.astype(dtype)) for x in np.random.default_rng(0).normal(size=(2, *SHAPE))
    )
    mask = StrictTensor(right_half().data.astype(dtype))
    lazy = LazyDenoised((x0,), lambda x: x * 2).with_known(known, mask)
    computed = lazy.compute(*lazy.tensors)
    assert computed is not None
    np.testing.assert_array_equal(computed.data[..., :4], known.data[..., :4])
    np.testing.assert_array_equal(computed.data[..., 4:], 2 * x0.data[..., 4:])
    assert not lazy.is_linear


def test_a_soft_mask_blends() -> None:
    known, mask = given_picture(), StrictTensor(np.full((1, 1, 8, 8), 0.25, np.float32))
    lazy = LazyDenoised((known,), lambda x: x * 5).with_known(known, mask)
    computed = lazy.compute(*lazy.tensors)
    assert computed is not None
    np.testing.assert_allclose(computed.data, 2 * known.data, rtol=1e-6)


def test_none_stays_none() -> None:
    lazy = LazyDenoised((given_picture(),), lambda x: None).with_known(
        given_picture(), right_half()
    )
    assert lazy.compute(*lazy.tensors) is None


def test_the_given_part_is_shown_as_given() -> None:
    given = given_picture()
    shown, result = previews(Inpainting(given, right_half()))
    guessed = colours(StrictTensor(np.full(SHAPE, 0.5, np.float32)))
    for step in shown[:-1]:
        np.testing.assert_array_equal(step[:, :, :4], colours(given)[:, :, :4])
        np.testing.assert_array_equal(step[:, :, 4:], guessed[:, :, 4:])
    assert (colours(given) != guessed)[:, :, :4].mean() > 0.8
    np.testing.assert_array_equal(shown[-1], colours(StrictTensor(result)))


def test_a_run_that_gives_no_picture_shows_what_the_model_says() -> None:
    shown, _ = previews(Inpainting(given_picture(), None))
    guessed = colours(StrictTensor(np.full(SHAPE, 0.5, np.float32)))
    for step in shown[:-1]:
        np.testing.assert_array_equal(step, guessed)


def test_latents_have_the_same_bits() -> None:
    _, shown = previews(Inpainting(given_picture(), right_half()))
    np.testing.assert_array_equal(shown, Inpainting(given_picture(), right_half())())


def test_the_mask_alone_is_no_region() -> None:
    with pytest.raises(ValueError, match=r"known_region .*must name two locals"):
        replace(Inpainting.unicb_facts, known_region=("init_mask",))
