"""A pipeline without a tokenizer says so, where Python would speak of None."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from unicb import Callback, Interrupt, PromptSchedule, Step, UnsupportedPipelineError, bind, stream
from unicb_numpy.ops import StrictTensor
from unicb_numpy.pipelines import ToyPipeline


def lowered(texts: Sequence[str]) -> list[str]:
    return [text.lower() for text in texts]


class Reading(ToyPipeline):
    """Its texts go through a tokenizer, as those of diffusers' pipelines do."""

    def __init__(self, tokenizer: Callable[[Sequence[str]], list[str]] | None) -> None:
        super().__init__()
        self.tokenizer = tokenizer

    def encode_prompt(self, prompts: Sequence[str]) -> StrictTensor:
        return super().encode_prompt(self.tokenizer(prompts))  # type: ignore[misc]


class ByMethod(Reading):
    def encode_prompt(self, prompts: Sequence[str]) -> StrictTensor:
        return ToyPipeline.encode_prompt(self, self.tokenizer.tokenize(prompts))  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", [Reading, ByMethod])
def test_texts_without_a_tokenizer(kind: Any) -> None:
    pipe = kind(None)
    binding = bind(pipe, Interrupt(2))
    with pytest.raises(UnsupportedPipelineError, match=f"{kind.__name__} .*tokenizer") as caught:
        binding("a dog")
    assert isinstance(caught.value.__cause__, AttributeError | TypeError)
    assert binding.state == "failed"
    with pytest.raises(UnsupportedPipelineError, match="without a tokenizer"):
        list(stream(pipe, "a dog"))
    pipe.tokenizer = lowered
    if kind is Reading:
        assert binding("a dog").shape
        assert binding.state == "interrupted"


class BySecond(Reading):
    """As the refiner of Stable Diffusion XL, which has no first one."""

    tokenizer_2: Any = None

    def encode_prompt(self, prompts: Sequence[str]) -> StrictTensor:
        return ToyPipeline.encode_prompt(self, self.tokenizer_2(prompts))


def test_a_second_tokenizer_is_enough() -> None:
    pipe = BySecond(None)
    pipe.tokenizer_2 = lowered
    schedule = PromptSchedule([(1.0, "a cat")])
    assert np.array_equal(bind(pipe, schedule)("a dog"), ToyPipeline()("a dog"))


def test_other_errors_are_left_alone() -> None:
    """Those of a pipeline with a tokenizer, and those of one without that come from elsewhere."""
    pipe: Any = Reading(lambda texts: None.tokens)  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="tokens"):
        bind(pipe)("a dog")

    class Fails(Callback):
        def on_step_end(self, step: Step) -> None:
            tokenizer = None
            tokenizer.fail()  # type: ignore[attr-defined]

    pipe = Reading(None)
    pipe.encode_prompt = ToyPipeline().encode_prompt
    with pytest.raises(AttributeError, match="fail"):
        bind(pipe, Fails())("a dog")
    pipe.unet = None
    with pytest.raises(TypeError, match="NoneType"):
        bind(pipe)("a dog")


def test_a_prompt_schedule_without_a_tokenizer() -> None:
    pipe = Reading(None)
    with pytest.raises(UnsupportedPipelineError, match=r"PromptSchedule .*without a tokenizer"):
        bind(pipe, PromptSchedule([(0.5, "a cat")]))
    pipe.tokenizer = lowered
    bind(pipe, PromptSchedule([(0.5, "a cat")]))("a dog")
