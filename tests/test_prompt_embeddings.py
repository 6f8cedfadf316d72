"""Embeddings beside texts in PromptSchedule and PromptWeights, and a second prompt."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from unicb import PromptSchedule, PromptWeights, UnsupportedPipelineError, bind
from unicb_numpy.ops import StrictTensor
from unicb_numpy.pipelines import ToyPipeline, ToyUNet

Array = npt.NDArray[Any]
CAT, DOG = "a cat", "a dog"


class Spied(ToyUNet):
    """Keeps what it is called with."""

    def __init__(self) -> None:
        self.seen: list[Array] = []

    def forward(self, sample: Any, timestep: float, encoder_hidden_states: Any) -> Any:
        self.seen.append(encoder_hidden_states.data)
        return super().forward(sample, timestep, encoder_hidden_states)


class ToyXL(ToyPipeline):
    """Two prompts, pooled embeddings, and the loop of Stable Diffusion XL, without guidance.

    Its denoiser gets the embeddings and the pooled ones as one sum.
    """

    _callback_tensor_inputs = (
        "latents",
        "prompt_embeds",
        "negative_prompt_embeds",
        "add_text_embeds",
    )

    def __init__(self) -> None:
        super().__init__()
        self.unet = Spied()
        self.encoded: list[tuple[list[str], list[str]]] = []

    def encode_prompt(  # type: ignore[override]
        self,
        prompt: Sequence[str] | str,
        prompt_2: Sequence[str] | str | None = None,
        num_images_per_prompt: int = 1,
        do_classifier_free_guidance: bool = False,
        negative_prompt: Any = None,
    ) -> tuple[Any, ...]:
        firsts = [prompt] if isinstance(prompt, str) else list(prompt)
        seconds = [prompt_2] if isinstance(prompt_2, str) else list(prompt_2 or firsts)
        if len(seconds) == 1:
            seconds = seconds * len(firsts)
        firsts = [text for text in firsts for _ in range(num_images_per_prompt)]
        seconds = [text for text in seconds for _ in range(num_images_per_prompt)]
        self.encoded.append((firsts, seconds))
        first, second = (ToyPipeline.encode_prompt(self, texts) for texts in (firsts, seconds))
        return StrictTensor(first.data + 10 * second.data), None, second, None

    def __call__(  # type: ignore[override]
        self,
        prompt: Any = None,
        prompt_2: Any = None,
        num_inference_steps: int = 4,
        num_images_per_prompt: int = 1,
        prompt_embeds: Any = None,
        pooled_prompt_embeds: Any = None,
        callback_on_step_end: Callable[..., dict[str, Any]] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> Any:
        self._guidance_scale, self._interrupt, negative_prompt = 1.0, False, None
        if prompt is not None:
            (
                prompt_embeds,
                negative_prompt_embeds,
                pooled_prompt_embeds,
                negative_pooled_prompt_embeds,
            ) = self.encode_prompt(
                prompt=prompt,
                prompt_2=prompt_2,
                num_images_per_prompt=num_images_per_prompt,
                do_classifier_free_guidance=self.do_classifier_free_guidance,
                negative_prompt=negative_prompt,
            )
        add_text_embeds = pooled_prompt_embeds
        negative_prompt_embeds = None
        noise = np.random.default_rng(0).normal(size=(len(prompt_embeds.data), 4, 8, 8))
        latents = StrictTensor(noise.astype(self.dtype))
        timesteps = self.scheduler.set_timesteps(num_inference_steps)
        self._num_timesteps = len(timesteps)
        for i, t in enumerate(timesteps):
            both = StrictTensor(prompt_embeds.data + 1000 * add_text_embeds.data)
            noise_pred = self.unet(latents, t, encoder_hidden_states=both)
            latents = self.scheduler.step(noise_pred, t, latents)
            if callback_on_step_end is not None:
                local = locals()
                callback_kwargs = {name: local[name] for name in callback_on_step_end_tensor_inputs}
                callback_outputs = callback_on_step_end(self, i, t, callback_kwargs)
                latents = callback_outputs.pop("latents", latents)
                prompt_embeds = callback_outputs.pop("prompt_embeds", prompt_embeds)
                add_text_embeds = callback_outputs.pop("add_text_embeds", add_text_embeds)
        return latents.data


@pytest.fixture
def xl() -> ToyXL:
    return ToyXL()


def tensor(text: str, rows: int = 1) -> StrictTensor:
    return ToyPipeline().encode_prompt([text] * rows)


def last(pipe: Any, callback: Any, *args: Any, **kwargs: Any) -> Array:
    """What the denoiser is called with in the last step of a run."""
    if not isinstance(pipe.unet, Spied):
        pipe.unet = Spied()
    pipe(*args, **kwargs, **bind(pipe, callback))
    return pipe.unet.seen[-1]  # type: ignore[no-any-return]


def plain(pipe: Any, *args: Any, **kwargs: Any) -> Array:
    pipe(*args, **kwargs)
    return pipe.unet.seen[-1]  # type: ignore[no-any-return]


def test_a_tensor_in_place_of_a_text(pipe: ToyPipeline) -> None:
    seen = last(pipe, PromptSchedule([(0.5, tensor(CAT))]), [DOG, "a pig"], num_images_per_prompt=2)
    np.testing.assert_array_equal(seen[4:], tensor(CAT, 4).data)
    np.testing.assert_array_equal(seen[:4], tensor("", 4).data)


def test_one_row_for_each_prompt(pipe: ToyPipeline) -> None:
    both = ToyPipeline().encode_prompt([CAT, "a cow"])
    seen = last(pipe, PromptSchedule([(0.5, both)]), [DOG, "a pig"], num_images_per_prompt=2)
    np.testing.assert_array_equal(seen[4:], both.data[[0, 0, 1, 1]])


def test_texts_and_embeddings_blend(pipe: ToyPipeline) -> None:
    expected = 0.25 * tensor(CAT).data + 0.75 * tensor(DOG).data
    for weights in ({tensor(CAT): 1, DOG: 3}, [(tensor(CAT), 1), (DOG, lambda progress: 3)]):
        seen = last(pipe, PromptWeights(weights), "a pig")
        np.testing.assert_allclose(seen[1:], expected, atol=1e-6)


def test_negative_embeddings(pipe: ToyPipeline) -> None:
    schedule = PromptSchedule(
        [(0.5, CAT)], negative=[(0.5, {"negative_prompt_embeds": tensor("bad")})]
    )
    seen = last(pipe, schedule, DOG)
    np.testing.assert_array_equal(seen, np.concatenate([tensor("bad").data, tensor(CAT).data]))


def test_the_dtype_is_the_loops(pipe: ToyPipeline) -> None:
    wide = StrictTensor(tensor(CAT).data.astype(np.float64))
    assert last(pipe, PromptSchedule([(0.5, wide)]), DOG).dtype == np.float32


@pytest.mark.parametrize(
    "form",
    [
        lambda made: made,  # as encode_prompt returns them
        lambda made: (made[0], made[2]),  # as compel does
        lambda made: [made[0], made[2]],
        lambda made: SimpleNamespace(embeds=made[0], pooled_embeds=made[2]),
        lambda made: {"prompt_embeds": made[0], "pooled_prompt_embeds": made[2]},
        lambda made: {"prompt_embeds": made[0], "add_text_embeds": made[2]},
    ],
)
def test_pooled_embeddings_in_every_form(xl: ToyXL, form: Any) -> None:
    expected = plain(xl, CAT)
    given = form(xl.encode_prompt(CAT))
    np.testing.assert_array_equal(last(xl, PromptSchedule([(0.5, given)]), DOG), expected)


def test_without_text_encoders(xl: ToyXL) -> None:
    """Nothing is encoded where all prompts are embeddings and the call has embeddings, too."""
    made, other = xl.encode_prompt(DOG), xl.encode_prompt(CAT)
    expected = plain(xl, CAT)
    xl.text_encoder = xl.tokenizer = None  # type: ignore[attr-defined]
    del xl.encoded[:]
    call = {"prompt_embeds": made[0], "pooled_prompt_embeds": made[2]}
    schedule = PromptSchedule([(0.0, made), (0.5, other)])
    np.testing.assert_array_equal(last(xl, schedule, **call), expected)
    assert xl.encoded == []
    with pytest.raises(UnsupportedPipelineError, match=r"text encoder; give it embeddings"):
        bind(xl, PromptSchedule([(0.5, CAT)]))


def test_prompt_2_of_the_call_stays(xl: ToyXL) -> None:
    expected = plain(xl, CAT, prompt_2="oil")
    seen = last(xl, PromptSchedule([(0.0, DOG), (0.5, CAT)]), DOG, prompt_2="oil")
    np.testing.assert_array_equal(seen, expected)


def test_prompt_2_of_each_prompt_of_the_call(xl: ToyXL) -> None:
    expected = plain(xl, [CAT, CAT], prompt_2=["oil", "ink"], num_images_per_prompt=2)
    call = {"prompt_2": ["oil", "ink"], "num_images_per_prompt": 2}
    seen = last(xl, PromptSchedule([(0.5, CAT)]), [DOG, "a pig"], **call)
    np.testing.assert_array_equal(seen, expected)


def test_prompt_2_of_the_schedule(xl: ToyXL) -> None:
    """What has none of its own is for both encoders, as in a call."""
    expected = [plain(xl, CAT, prompt_2="oil"), plain(xl, "a cow")]
    both = [(0.25, {"prompt": CAT, "prompt_2": "oil"}), (0.75, "a cow")]
    seen = last(xl, PromptSchedule(both), DOG)
    np.testing.assert_array_equal(xl.unet.seen[-2], expected[0])
    np.testing.assert_array_equal(seen, expected[1])


def test_another_prompt_2_than_the_call(xl: ToyXL) -> None:
    schedule = PromptSchedule([(0.0, {"prompt": DOG, "prompt_2": "oil"}), (0.5, CAT)])
    last(xl, schedule, DOG, prompt_2="oil")
    with pytest.raises(ValueError, match=r"starts at 0.0 with prompt='a dog' and prompt_2='oil'"):
        last(xl, schedule, DOG, prompt_2="ink")


def test_a_schedule_that_starts_with_embeddings(pipe: ToyPipeline) -> None:
    schedule = PromptSchedule([(0.0, tensor(DOG)), (0.5, CAT)])
    np.testing.assert_array_equal(last(pipe, schedule, DOG)[1:], tensor(CAT).data)
    with pytest.raises(ValueError, match=r"starts at 0.0 with embeddings of shape \(1, 4\).*later"):
        last(pipe, schedule, "a pig")


def bound(pipe: Any, prompt: Any) -> None:
    bind(pipe, PromptSchedule([(0.5, prompt)]))


@pytest.mark.parametrize(
    ("prompt", "error", "said"),
    [
        (np.zeros((1, 4), np.float32), TypeError, "tensors of its framework, not a ndarray"),
        (tensor(CAT), ValueError, r"shape \(1, 4\) lack pooled_prompt_embeds: ToyXL exchanges"),
        ((tensor(CAT),) * 3, ValueError, "3 tensors are given .* prompt_embeds, pooled_prompt_em"),
        (
            {"prompt_embed": tensor(CAT)},
            ValueError,
            "have prompt_embed, which .* makes",
        ),
        (
            {"prompt": CAT, "prompt_3": CAT},
            UnsupportedPipelineError,
            "takes no prompt_3",
        ),
    ],
)
def test_what_bind_says(xl: ToyXL, prompt: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said) as caught:
        bound(xl, prompt)
    assert "StrictTensor(" not in str(caught.value)


@pytest.mark.parametrize(
    ("prompt", "error", "said"),
    [
        ({"prompt": CAT, "prompt_embeds": tensor(CAT)}, TypeError, "a dict of either, not"),
        ({"prompt_2": CAT}, ValueError, "has prompt_2, and lacks 'prompt'"),
        ({"negative_prompt": CAT}, ValueError, r"negative_prompt, which .*negative=\[\.\.\.\]"),
        ({}, TypeError, "by names such as 'prompt', not {}"),
        ([CAT, tensor(CAT)], TypeError, r"not \['a cat', a StrictTensor of shape \(1, 4\)"),
        ([None, tensor(CAT)], TypeError, "embeddings"),
    ],
)
def test_what_a_schedule_says(prompt: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        PromptSchedule([(0.5, prompt)])


def test_what_encode_prompt_returns_is_no_negative_prompt(pipe: ToyPipeline, xl: ToyXL) -> None:
    given = xl.encode_prompt(CAT)
    xl.unicb_facts = pipe.unicb_facts
    schedule = PromptSchedule(
        [(0.5, CAT)], negative=[(0.5, (given[0], tensor(""), *given[2:3] * 2))]
    )
    with pytest.raises(ValueError, match="in negative=, give those that are meant: prompt_embeds"):
        bind(xl, schedule)


def test_compels_negative_embeddings_are_no_negative_prompt() -> None:
    both = SimpleNamespace(embeds=tensor(CAT), pooled_embeds=None, negative_embeds=tensor(""))
    PromptSchedule([(0.5, both)])
    with pytest.raises(ValueError, match=r"of a prompt and of a negative one.*negative_embeds"):
        PromptSchedule([(0.5, CAT)], negative=[(0.5, both)])


def test_shapes_and_no_numbers_in_errors(pipe: ToyPipeline) -> None:
    wide = StrictTensor(np.full((1, 6), 0.1234567, np.float32))
    said = r"prompt_embeds that are given have the shape \(1, 6\), and the loop .* with \(2, 4\)"
    with pytest.raises(ValueError, match=said):
        last(pipe, PromptSchedule([(0.5, wide)]), DOG)
    three = ToyPipeline().encode_prompt([CAT] * 3)
    with pytest.raises(ValueError, match=r"prompt_embeds of 3 rows, and .* called with 2 prompts"):
        last(pipe, PromptSchedule([(0.5, three)]), [DOG, DOG])
    for wrong in (
        lambda: PromptWeights({wide: "much"}),
        lambda: PromptWeights([(wide, 1.0), (wide, -1.0)]),
        lambda: PromptSchedule(wide),  # type: ignore[arg-type]
        lambda: PromptSchedule([wide]),  # type: ignore[list-item]
        lambda: PromptSchedule([(wide, wide)]),  # type: ignore[list-item]
    ):
        with pytest.raises((TypeError, ValueError)) as caught:
            wrong()
        assert not re.search(r"0\.123|array\(", str(caught.value))
        assert "(1, 6)" in str(caught.value)
