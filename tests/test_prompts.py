"""PromptSchedule and PromptWeights, by what the toy's denoiser is called with at each step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from unicb import CFGCutoff, PipelineFacts, UnsupportedPipelineError, bind
from unicb.callbacks.prompts import PromptSchedule, PromptWeights
from unicb_numpy.ops import StrictTensor
from unicb_numpy.pipelines import ToyPipeline, ToyUNet

STEPS = 10
Array = npt.NDArray[Any]


def embedding(text: str) -> Array:
    row: Array = ToyPipeline().encode_prompt([text]).data[0]
    return row


def embeds_of(pipe: Any, prompt: Any, *callbacks: Any, **keywords: Any) -> list[Array]:
    """What the denoiser is called with at each step, [rows, 4], the unconditional rows first."""
    seen: list[Array] = []

    class Spied(ToyUNet):
        def forward(self, sample: Any, timestep: float, encoder_hidden_states: Any) -> Any:
            seen.append(encoder_hidden_states.data)
            return super().forward(sample, timestep, encoder_hidden_states)

    pipe.unet = Spied()
    pipe(prompt, **{"num_inference_steps": STEPS, **keywords}, **bind(pipe, *callbacks))
    return seen


def conditional(seen: Sequence[Array]) -> list[Array]:
    return [rows[len(rows) // 2 :] for rows in seen]


def test_each_prompt_holds_from_its_progress_on(pipe: ToyPipeline) -> None:
    schedule = PromptSchedule([(0.0, "a dog"), (0.3, "a cat"), (0.75, "a cow")])
    seen = embeds_of(pipe, "a dog", schedule)
    expected = ["a dog"] * 3 + ["a cat"] * 5 + ["a cow"] * 2
    for rows, text in zip(seen, expected, strict=True):
        np.testing.assert_array_equal(rows[1], embedding(text))
        np.testing.assert_array_equal(rows[0], embedding(""))


def test_before_the_first_the_prompt_of_the_call_holds(pipe: ToyPipeline) -> None:
    seen = embeds_of(pipe, "a horse", PromptSchedule([(0.5, "a cat")]))
    for step, rows in enumerate(conditional(seen)):
        np.testing.assert_array_equal(rows[0], embedding("a horse" if step < 5 else "a cat"))


@pytest.mark.parametrize("start", [[], [(0.0, "a dog")]])
def test_interpolation_is_a_straight_line(pipe: ToyPipeline, start: list[Any]) -> None:
    schedule = PromptSchedule([*start, (0.5, "a cat")], interpolate=True)
    seen = conditional(embeds_of(pipe, "a dog", schedule))
    for step, rows in enumerate(seen):
        share = min(step / 5, 1.0)
        line = (1 - share) * embedding("a dog") + share * embedding("a cat")
        np.testing.assert_allclose(rows[0], line, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(seen[5][0], embedding("a cat"))


def test_one_prompt_each_and_all_of_its_images_get_it(pipe: ToyPipeline) -> None:
    schedule = PromptSchedule([(0.5, ["a cat", "a cow"])])
    seen = embeds_of(pipe, ["a dog", "a pig"], schedule, num_images_per_prompt=3)
    for step, rows in enumerate(conditional(seen)):
        texts = ["a dog", "a pig"] if step < 5 else ["a cat", "a cow"]
        expected = [embedding(text) for text in texts for _ in range(3)]
        np.testing.assert_array_equal(rows, expected)


def test_one_text_serves_all(pipe: ToyPipeline) -> None:
    seen = embeds_of(pipe, ["a dog", "a pig"], PromptSchedule([(0.5, "a cat")]))
    np.testing.assert_array_equal(conditional(seen)[-1], [embedding("a cat")] * 2)


def test_without_guidance(pipe: ToyPipeline) -> None:
    schedule = PromptSchedule([(0.5, "a cat")], negative=[(0.5, "blurred")])
    seen = embeds_of(pipe, ["a dog", "a pig"], schedule, guidance_scale=1.0)
    np.testing.assert_array_equal(seen[4], [embedding("a dog"), embedding("a pig")])
    np.testing.assert_array_equal(seen[5], [embedding("a cat")] * 2)


def test_negative_prompts(pipe: ToyPipeline) -> None:
    schedule = PromptSchedule([(0.2, "a cat")], negative=[(0.5, "blurred")])
    seen = embeds_of(pipe, "a dog", schedule)
    for step, rows in enumerate(seen):
        np.testing.assert_array_equal(rows[0], embedding("" if step < 5 else "blurred"))
        np.testing.assert_array_equal(rows[1], embedding("a dog" if step < 2 else "a cat"))


@pytest.mark.parametrize("order", [0, 1])
def test_it_goes_with_a_cut_of_guidance(pipe: ToyPipeline, order: int) -> None:
    callbacks = [PromptSchedule([(0.6, "a cat")]), CFGCutoff(0.3)][:: 1 - 2 * order]
    seen = embeds_of(pipe, "a dog", *callbacks)
    assert [len(rows) for rows in seen] == [2] * 4 + [1] * 6
    assert [bool((rows[-1] == embedding("a cat")).all()) for rows in seen] == [False] * 6 + [
        True
    ] * 4


def test_weights_change_from_step_to_step(pipe: ToyPipeline) -> None:
    blend = PromptWeights({"a dog": lambda progress: 1 - progress, "a cat": lambda p: 3 * p})
    seen = conditional(embeds_of(pipe, "a cow", blend))
    np.testing.assert_array_equal(seen[0][0], embedding("a cow"))
    for step, rows in list(enumerate(seen))[1:]:
        dog, cat = 1 - step / STEPS, 3 * step / STEPS
        expected = (dog * embedding("a dog") + cat * embedding("a cat")) / (dog + cat)
        np.testing.assert_allclose(rows[0], expected, rtol=0, atol=1e-6)


def test_weights_are_divided_by_their_sum(pipe: ToyPipeline) -> None:
    seen = conditional(embeds_of(pipe, "a cow", PromptWeights({"a dog": 6, "a cat": -2})))
    expected = 1.5 * embedding("a dog") - 0.5 * embedding("a cat")
    np.testing.assert_allclose(seen[-1][0], expected, rtol=0, atol=1e-6)


def test_a_schedule_of_one_prompt_changes_no_bit(pipe: ToyPipeline) -> None:
    plain = pipe("a dog", output_type="latent")
    schedule = PromptSchedule([(0.0, "a dog"), (0.4, "a dog")])
    same = pipe("a dog", output_type="latent", **bind(pipe, schedule))
    np.testing.assert_array_equal(plain, same)


class Counting(ToyPipeline):
    """Draws from the global generator where it encodes, and tells what it encoded."""

    def __init__(self) -> None:
        super().__init__()
        self.encoded: list[list[str]] = []

    def encode_prompt(self, prompts: Sequence[str]) -> StrictTensor:
        np.random.random()
        self.encoded.append(list(prompts))
        return super().encode_prompt(prompts)


def test_prompts_are_encoded_once_a_run_and_leave_the_random_numbers_alone() -> None:
    pipe = Counting()
    callbacks = bind(pipe, PromptSchedule([(0.0, "a dog"), (0.3, "a cat"), (0.6, "a dog")]))
    np.random.seed(0)
    plain = pipe("a dog"), np.random.random()
    for run in range(2):
        pipe.encoded.clear()
        np.random.seed(0)
        assert (pipe("a dog", **callbacks) != plain[0]).any()
        assert np.random.random() == plain[1]
        # The call's own two, the schedule's, and the first time a look whether that is right.
        assert pipe.encoded[2:] == [["a dog", "a cat"], ["a dog"]][: 2 - run]


def test_two_runs_of_one_callback_do_not_mix() -> None:
    schedule = PromptSchedule([(0.5, "a cat")], interpolate=True)
    for text in ("a dog", "a cow"):
        seen = conditional(embeds_of(ToyPipeline(), text, schedule))
        half = 0.6 * embedding(text) + 0.4 * embedding("a cat")
        np.testing.assert_allclose(seen[2][0], half, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("schedule", "error", "message"),
    [
        ([], ValueError, "empty"),
        ("a cat", TypeError, "list of pairs"),
        ({0.5: "a cat"}, TypeError, "list of pairs"),
        ([0.5, "a cat"], TypeError, "pairs like"),
        (
            [("a cat", 0.5)],
            TypeError,
            "the progress and then the prompt, .* not \\('a cat', 0.5\\)",
        ),
        ([(1.5, "a cat")], ValueError, "0..1, not 1.5"),
        ([(-0.1, "a cat")], ValueError, "0..1, not -0.1"),
        ([(float("nan"), "a cat")], ValueError, "not nan"),
        ([(True, "a cat")], TypeError, "not True"),
        ([(0.5, "a cat"), (0.2, "a dog")], ValueError, "sorted .* 0.2 follows 0.5"),
        ([(0.5, "a cat"), (0.5, "a dog")], ValueError, "sorted"),
        ([(0.5, 7)], TypeError, "a text, a list of texts, .* not 7"),
        ([(0.5, ["a cat", 7])], TypeError, "a text, a list of texts"),
        ([(0.5, [])], ValueError, "is an empty list"),
        ([(0.2, ["a", "b"]), (0.5, ["a", "b", "c"])], ValueError, "lists of 2 and 3"),
    ],
)
def test_bad_schedules(schedule: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        PromptSchedule(schedule)
    with pytest.raises(error, match=message.replace("schedule", "negative")):
        PromptSchedule([(0.5, "a cat")], negative=schedule)


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        ({}, ValueError, "at least one"),
        (["a cat"], TypeError, "a dict"),
        ({7: 1.0}, TypeError, "a text, .*, not 7"),
        ({"a cat": "much"}, TypeError, "'a cat' must be a number, not 'much'"),
        ({"a cat": float("inf")}, ValueError, "finite"),
        ({"a cat": 1, "a dog": -1}, ValueError, "sum to more than 0, not 0"),
    ],
)
def test_bad_weights(weights: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        PromptWeights(weights)


def test_a_function_of_weights_that_gives_none(pipe: ToyPipeline) -> None:
    with pytest.raises(TypeError, match="'a cat' must be a number, not None"):
        pipe("a dog", **bind(pipe, PromptWeights({"a cat": lambda progress: None})))


def test_a_list_that_does_not_fit_the_batch(pipe: ToyPipeline) -> None:
    callbacks = bind(pipe, PromptSchedule([(0.5, ["a cat", "a cow"])]))
    with pytest.raises(ValueError, match="list of 2 prompts, and the pipeline was called with 3"):
        pipe(["a", "b", "c"], **callbacks)
    # Two prompts are not one prompt's two images twice.
    with pytest.raises(ValueError, match="list of 2 prompts, and the pipeline was called with 1"):
        pipe("a", num_images_per_prompt=4, **callbacks)


def test_the_call_has_to_be_made_with_the_schedule_s_first(pipe: ToyPipeline) -> None:
    callbacks = bind(pipe, PromptSchedule([(0.0, "a dog"), (0.5, "a cat")]))
    with pytest.raises(ValueError, match=r"starts at 0\.0 with 'a dog'.* called.*'a horse'"):
        pipe("a horse", **callbacks)


def test_two_of_them_are_refused(pipe: ToyPipeline) -> None:
    with pytest.raises(ValueError, match="prompt"):
        bind(pipe, PromptSchedule([(0.5, "a cat")]), PromptWeights({"a dog": 1}))


class Ignoring(ToyPipeline):
    """Offers its embeddings, and does not take them back."""

    def __call__(self, prompt: Any, callback_on_step_end: Any = None, **_: Any) -> Any:
        prompt_embeds = self.encode_prompt(prompt)
        for index in range(3):
            callback_outputs = callback_on_step_end(self, index, 0, {"latents": prompt_embeds})
            latents = callback_outputs.pop("latents")
        return latents


class Combining(ToyPipeline):
    """Takes them back, and goes on with what it made of them before."""

    def __call__(self, prompt: Any, callback_on_step_end: Any = None, **_: Any) -> Any:
        prompt_embeds = self.encode_prompt(prompt)
        combined = prompt_embeds * 2
        for index in range(3):
            callback_kwargs = {"latents": combined}
            callback_kwargs["prompt_embeds"] = prompt_embeds
            callback_outputs = callback_on_step_end(self, index, 0, callback_kwargs)
            prompt_embeds = callback_outputs.pop("prompt_embeds", prompt_embeds)
        return combined


class Pooling(ToyPipeline):
    """Keeps its pooled embeddings and its mask to itself."""

    def encode_prompt(self, prompt: Any) -> Any:
        embeds = super().encode_prompt(prompt)
        lengths = np.array([[float(len(text) > 5)] for text in prompt])
        return embeds, embeds, StrictTensor(lengths)

    def __call__(self, prompt: Any, callback_on_step_end: Any = None, **_: Any) -> Any:
        self._guidance_scale, self._num_timesteps = 1.0, 4
        prompt_embeds, pooled_prompt_embeds, prompt_mask = self.encode_prompt(prompt)
        latents = pooled_prompt_embeds
        for index in range(4):
            latents = latents + prompt_embeds * prompt_mask
            callback_outputs = callback_on_step_end(self, index, 0, {"latents": latents})
            latents = callback_outputs.pop("latents", latents)
            prompt_embeds = callback_outputs.pop("prompt_embeds", prompt_embeds)
        return latents.data


@pytest.mark.parametrize("kind", [Ignoring, Combining])
def test_a_loop_that_goes_on_with_its_own_is_refused(kind: type[ToyPipeline]) -> None:
    with pytest.raises(UnsupportedPipelineError, match="takes no prompt embeddings back"):
        bind(kind(), PromptSchedule([(0.5, "a cat")]))


def test_a_loop_that_takes_back_a_part_needs_to_be_told() -> None:
    pipe = Pooling()
    with pytest.raises(
        UnsupportedPipelineError, match=r"pooled_prompt_embeds and prompt_mask .*partly"
    ):
        bind(pipe, PromptWeights({"a cat": 1}))
    found = pipe(["animal"], **bind(pipe, PromptSchedule([(0.5, "kitten")], partly=True)))
    expected = 3 * embedding("animal") + 2 * embedding("kitten")
    np.testing.assert_allclose(found[0], expected, rtol=1e-6)
    with pytest.raises(UnsupportedPipelineError, match="needs another prompt_mask"):
        pipe(["animal"], **bind(pipe, PromptSchedule([(0.5, "cat")], partly=True)))


def test_no_encoder_no_prompts(pipe: ToyPipeline) -> None:
    pipe.text_encoder = None  # type: ignore[attr-defined]
    with pytest.raises(UnsupportedPipelineError, match="without a text encoder"):
        bind(pipe, PromptSchedule([(0.5, "a cat")]))


def test_a_negative_prompt_out_of_reach_is_refused(pipe: ToyPipeline) -> None:
    kind = type("Called", (ToyPipeline,), {})
    kind.unicb_facts = PipelineFacts(source="here", denoisers=("unet",), cfg="calls")
    with pytest.raises(UnsupportedPipelineError, match="negative prompt"):
        bind(kind(), PromptSchedule([(0.5, "a cat")], negative=[(0.5, "blurred")]))


class Longer(ToyPipeline):
    def encode_prompt(self, prompts: Sequence[str]) -> StrictTensor:
        embeds = super().encode_prompt(prompts).data
        wide = max(len(text) for text in prompts) > 8
        return StrictTensor(np.concatenate([embeds, embeds], axis=1) if wide else embeds)


def test_embeddings_of_another_length_are_refused() -> None:
    pipe = Longer()
    callbacks = bind(pipe, PromptSchedule([(0.5, "a very long text")]))
    with pytest.raises(UnsupportedPipelineError, match=r"\(8,\), and the loop works with \(4,\)"):
        pipe("a dog", **callbacks)


class Changing(ToyPipeline):
    """Encodes the same prompt otherwise each time."""

    calls = 0

    def encode_prompt(self, prompts: Sequence[str]) -> StrictTensor:
        self.calls += 1
        return super().encode_prompt(prompts) * self.calls


def test_a_loop_that_works_with_something_else_is_noticed() -> None:
    pipe = Changing()
    with pytest.raises(UnsupportedPipelineError, match="works with other prompt_embeds"):
        pipe("a dog", **bind(pipe, PromptSchedule([(0.5, "a cat")])))
