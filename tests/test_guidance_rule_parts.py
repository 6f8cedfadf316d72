"""What of a denoiser's answer a rule is handed, and where its own goes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from one_call import Denoiser, Running

from unicb import GuidanceRule, PipelineFacts, UnsupportedPipelineError
from unicb.guidance._ruling import ruling
from unicb.guidance._unproven import SeenFacts
from unicb_numpy import backend
from unicb_numpy.ops import StrictTensor
from unicb_numpy.pipelines import ToyPipeline

SCALE = 5.0


class Momentum(GuidanceRule):
    def combine(self, unconditional: Any, conditional: Any, scale: Any, step: Any) -> Any:
        raise NotImplementedError


class Ruled:
    """A pipeline with such facts, whose rule makes the mean of both of them, for each row."""

    def __init__(self, shape: tuple[int, ...], members: Any = (), **facts: Any) -> None:
        given = {"denoisers": ("unet",), "guidance_scale": "local", **facts}
        about = PipelineFacts(source="this test", **given)
        self.kind = type("Pipeline", (ToyPipeline,), {"unicb_facts": about, **dict(members)})
        self.pipe = self.kind()
        self.pipe._guidance_scale, self.pipe._num_timesteps = SCALE, 4  # type: ignore[attr-defined]
        self.pipe.unet = self.denoiser = Denoiser()
        self.run = Running(self.pipe, guidance_scale=SCALE)
        self.seen: list[tuple[Any, ...]] = []
        latents = StrictTensor(np.zeros(shape))
        rest = (latents, self.run, self._combine, lambda: False, SeenFacts())
        self.run.made = self.made = ruling(backend, self.pipe, about, *rest)

    def _combine(self, u: StrictTensor, c: StrictTensor, step: Any) -> StrictTensor:
        self.seen.append((u.shape, step.part, step.guidance_scale, step.has_own_scale))
        mean = (u.data + c.data) / 2
        axes = tuple(range(1, mean.ndim))
        return StrictTensor(np.broadcast_to(mean.mean(axis=axes, keepdims=True), mean.shape))

    def answer(self, answer: Any, sample: Any) -> Any:
        self.denoiser.answers.append(answer)
        return self.denoiser.forward(sample)


def tensor(*shape: int, seed: int = 0) -> StrictTensor:
    return StrictTensor(np.random.default_rng(seed).normal(size=shape))


def looped(answer: StrictTensor, scale: float = SCALE) -> Any:
    u, c = np.split(answer.data, 2)
    return u + scale * (c - u)


def wanted(u: Any, c: Any) -> Any:
    mean = (u + c) / 2
    return np.broadcast_to(mean.mean(axis=tuple(range(1, mean.ndim)), keepdims=True), mean.shape)


def test_a_learned_variance_is_none_of_a_rules_business() -> None:
    ruled = Ruled((2, 4, 8, 8))
    answer = tensor(4, 8, 8, 8)
    out = ruled.answer(answer, tensor(4, 4, 8, 8))
    assert ruled.seen == [((2, 4, 8, 8), 0, SCALE, False)]
    u, c = np.split(answer.data, 2)
    np.testing.assert_allclose(looped(out)[:, :4], wanted(u[:, :4], c[:, :4]))
    np.testing.assert_array_equal(out.data[:, 4:], answer.data[:, 4:])
    np.testing.assert_array_equal(out.data[2:], c)


def test_channels_that_nobody_knows() -> None:
    ruled = Ruled((1, 4, 8, 8))
    with pytest.raises(UnsupportedPipelineError, match=r"predicts 5 along axis 1, .* have 4"):
        ruled.answer(tensor(2, 5, 8, 8), tensor(2, 4, 8, 8))
    assert "forward" not in vars(ruled.denoiser)


class TakesFirst(ToyPipeline):
    def __call__(self, latents: Any, callback_on_step_end: Any = None) -> Any:  # type: ignore[override]
        noise_pred = self.unet(latents)
        return noise_pred[:, : latents.size(1)]


def test_tokens_of_a_reference() -> None:
    """The loop takes as many as the latents have, and says so in its code."""
    ruled = Ruled((1, 3, 6), {"__call__": TakesFirst.__call__})
    answer = tensor(2, 5, 6)
    out = ruled.answer(answer, tensor(2, 5, 6))
    assert ruled.seen[0][0] == (1, 3, 6)
    u, c = np.split(answer.data, 2)
    np.testing.assert_allclose(looped(out)[:, :3], wanted(u[:, :3], c[:, :3]))
    np.testing.assert_array_equal(out.data[:, 3:], answer.data[:, 3:])


def test_tokens_that_nobody_knows() -> None:
    ruled = Ruled((1, 3, 6))
    with pytest.raises(UnsupportedPipelineError, match=r"predicts 5 along axis 1, .* have 3"):
        ruled.answer(tensor(2, 5, 6), tensor(2, 5, 6))


def test_tokens_of_a_text_before_the_pictures() -> None:
    ruled = Ruled((1, 3, 6), cfg="calls", tail=True)
    c, u = tensor(1, 5, 6), tensor(1, 7, 6, seed=1)
    ruled.answer(c, c)
    out = ruled.answer(u, u).data
    assert ruled.seen[0][0] == (1, 3, 6)
    made = out[:, -3:] + SCALE * (c.data[:, -3:] - out[:, -3:])
    np.testing.assert_allclose(made, wanted(u.data[:, -3:], c.data[:, -3:]))


def test_frames_among_the_rows_are_those_of_a_row() -> None:
    ruled = Ruled((2, 4, 3, 8, 8), frames_axis=2)
    answer = tensor(12, 4, 8, 8)
    out = ruled.answer(answer, tensor(12, 4, 8, 8))
    assert ruled.seen[0][0] == (2, 3, 4, 8, 8)
    u, c = (x.reshape(2, 3, 4, 8, 8) for x in np.split(answer.data, 2))
    np.testing.assert_allclose(looped(out).reshape(u.shape), wanted(u, c))


@pytest.mark.parametrize("same", [True, False])
def test_a_listed_batch(same: bool) -> None:
    """Its rows are handed over as one tensor; each by itself where their shapes differ."""
    order = ("conditional", "unconditional")
    ruled = Ruled((2, 4, 8, 8), listed=True, order=order)
    sizes = [8, 8] if same else [8, 6]
    answer = [tensor(4, 1, n, n, seed=i) for i, n in enumerate(sizes * 2)]
    out = ruled.answer({"sample": list(answer)}, [1, 2, 3, 4])["sample"]
    assert [x is y for x, y in zip(out, answer, strict=True)] == [True, True, False, False]
    assert len(ruled.seen) == (1 if same else 2)
    assert [part for _, part, _, _ in ruled.seen] == [*range(len(ruled.seen))]
    for row in range(2):
        c, u = out[row].data, out[row + 2].data
        mean = wanted(answer[row + 2].data[None], answer[row].data[None])[0]
        np.testing.assert_allclose(u + SCALE * (c - u), mean)


def with_sound(sound: float) -> Ruled:
    follows = ("_audio_guidance_scale",)
    members = {"_audio_guidance_scale": sound, "_guidance_scale": SCALE}
    return Ruled((1, 3, 6), members, guidance_scale="property", scale_follows=follows)


@pytest.mark.parametrize("sound", [3.0, SCALE, 1.0])
def test_a_sound_beside_a_video(sound: float) -> None:
    """With a scale of its own, or that of the video; or without guidance."""
    ruled = with_sound(sound)
    assert ruled.pipe.guidance_scale == 2.0  # with which the loop multiplies by 1
    video, audio = tensor(2, 3, 6), tensor(2, 9, 5, seed=1)
    out = ruled.answer((video, audio), tensor(2, 3, 6))
    own = (((1, 9, 5), 1, sound, sound != SCALE),) if sound > 1 else ()
    assert ruled.seen == [((1, 3, 6), 0, SCALE, False), *own]
    np.testing.assert_allclose(looped(out[0], 2.0), wanted(*np.split(video.data, 2)))
    loops = ruled.pipe._audio_guidance_scale
    if sound > 1:
        np.testing.assert_allclose(looped(out[1], loops), wanted(*np.split(audio.data, 2)))
    else:
        np.testing.assert_array_equal(out[1].data, audio.data)
    ruled.made.remove()
    assert (ruled.pipe.guidance_scale, ruled.pipe._audio_guidance_scale) == (SCALE, sound)


def test_what_is_kept_of_another_shape_is_forgotten() -> None:
    """As where a loop drops frames in its middle."""
    ruled, lengths = Ruled((1, 3, 4, 8, 8)), []
    combine = ruled._combine

    def keeping(u: Any, c: Any, step: Any) -> Any:
        kept = step.state(rule, list)
        kept.append(u.shape)
        lengths.append(len(kept))
        return combine(u, c, step)

    rule = Momentum()
    ruled.made._hooks._moves._combine = keeping  # type: ignore[union-attr]
    for index, frames in enumerate((3, 3, 2, 2)):
        ruled.answer(tensor(2, frames, 4, 8, 8), tensor(2, frames, 4, 8, 8))
        ruled.made.step_end()
        ruled.run.index = index
    assert lengths == [1, 2, 1, 2]


def test_a_denoiser_that_cannot_be_hooked_by_then() -> None:
    """The scale of its loop is put back."""
    ruled = Ruled((1, 3, 6), guidance_scale="property")
    ruled.made.remove()

    def fails(*args: Any, **keywords: Any) -> Any:
        raise UnsupportedPipelineError("it cannot be hooked")

    ruled.run.hook = fails  # type: ignore[method-assign]
    rest = (tensor(1, 3, 6), ruled.run, ruled._combine, lambda: False, SeenFacts())
    with pytest.raises(UnsupportedPipelineError, match="cannot be hooked"):
        ruling(backend, ruled.pipe, ruled.pipe.unicb_facts, *rest)
    assert ruled.pipe.guidance_scale == SCALE


def test_caches_beside_a_prediction_stay() -> None:
    ruled = Ruled((1, 3, 6), cfg="calls", fills="mode=extract")
    c, u, cache = tensor(1, 3, 6), tensor(1, 3, 6, seed=1), tensor(2, 2, 4, seed=2)
    ruled.answer((c, cache), c)
    out, same = ruled.answer((u, cache), u)
    assert same is cache
    assert [part for _, part, _, _ in ruled.seen] == [0]
    np.testing.assert_allclose(out.data + SCALE * (c.data - out.data), wanted(u.data, c.data))


def test_parts_count_on_over_the_calls_of_a_step() -> None:
    """Windows of a video: what a rule keeps is of one of them."""
    ruled = Ruled((1, 4, 8, 8))
    for index in range(2):
        for _ in range(2):
            ruled.answer(tensor(2, 4, 8, 8), tensor(2, 4, 8, 8))
        ruled.made.step_end()
        ruled.run.index = index
    assert [part for _, part, _, _ in ruled.seen] == [0, 1, 0, 1]


def test_more_calls_of_the_conditional_rows_alone() -> None:
    """Such as those of guidance by skipped layers, after the guided one; before it, they would mean
    that there is no guidance."""
    ruled = Ruled((1, 4, 8, 8))
    ruled.answer(tensor(2, 4, 8, 8), tensor(2, 4, 8, 8))
    alone = tensor(1, 4, 8, 8)
    assert ruled.answer(alone, tensor(1, 4, 8, 8)) is alone
    other = Ruled((1, 4, 8, 8))
    with pytest.raises(UnsupportedPipelineError, match="called with guidance off"):
        other.answer(alone, tensor(1, 4, 8, 8))


def test_three_parts() -> None:
    order = ("conditional", "unconditional", "unconditional")
    ruled = Ruled((1, 4, 8, 8), order=order, least_blocks=2)
    with pytest.raises(UnsupportedPipelineError, match="with 3 parts, where a rule takes two"):
        ruled.answer(tensor(3, 4, 8, 8), tensor(3, 4, 8, 8))


def test_perturbed_rows_and_whole_numbers_stay() -> None:
    ruled = Ruled((1, 4, 8, 8), order=("unconditional", "conditional", "perturbed"))
    answer, numbers = tensor(3, 4, 8, 8), StrictTensor(np.arange(3))
    out, same = ruled.answer((answer, numbers), tensor(3, 4, 8, 8))
    np.testing.assert_array_equal(out.data[1:], answer.data[1:])
    np.testing.assert_array_equal(same.data, numbers.data)
    u, c = answer.data[:1], answer.data[1:2]
    np.testing.assert_allclose(looped(StrictTensor(out.data[:2])), wanted(u, c))


def test_a_scale_for_each_frame() -> None:
    """Where the pipeline has a tensor of them, the rule has it; in the loop, a number will do."""
    scales = StrictTensor(np.linspace(1.0, 3.0, 3).reshape(1, 3, 1, 1, 1))
    ruled = Ruled((1, 3, 4, 8, 8), guidance_scale="property")
    ruled.made.remove()
    ruled.pipe._guidance_scale = scales  # type: ignore[assignment]
    type(ruled.pipe).do_classifier_free_guidance = True  # type: ignore[method-assign, assignment]
    facts = ruled.pipe.unicb_facts
    rest = (scales, ruled.run, ruled._combine, lambda: False, SeenFacts())
    made = ruling(backend, ruled.pipe, facts, *rest)
    ruled.answer(tensor(2, 3, 4, 8, 8), tensor(2, 3, 4, 8, 8))
    np.testing.assert_array_equal(ruled.seen[0][2].data, scales.data)
    assert ruled.pipe.guidance_scale == 2.0
    made.remove()
    assert ruled.pipe.guidance_scale is scales
