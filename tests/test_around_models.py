"""``run.around_models``: a callback answers the run's own calls of its models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from unicb import Callback, CFGCutoff, PipelineFacts, Step, UnsupportedPipelineError, bind
from unicb_numpy.ops import StrictTensor
from unicb_numpy.pipelines import ToyPipeline

STEPS = 5


class Around(Callback):
    """Answers with the model's own answer, times a factor; notes what it is asked."""

    def __init__(self, name: str = "", notes: list[Any] | None = None, factor: float = 1.0) -> None:
        self.name, self.factor = name, factor
        self.notes: list[Any] = [] if notes is None else notes

    def before_first_step(self, step: Step) -> None:
        step.run.around_models(self._answer)

    def _answer(self, model: Any, call: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.notes.append((self.name, model, args[0].shape[0], sorted(kwargs)))
        return StrictTensor(call(*args, **kwargs).data * self.factor)

    def on_step_end(self, step: Step) -> None:
        pass


def test_every_call_from_the_first_on(pipe: ToyPipeline) -> None:
    around = Around()
    plain = pipe("a", num_inference_steps=STEPS)
    np.testing.assert_array_equal(bind(pipe, around)("a", num_inference_steps=STEPS), plain)
    assert around.notes == [("", pipe.unet, 2, ["encoder_hidden_states"])] * STEPS


def test_what_it_answers_reaches_the_loop(pipe: ToyPipeline) -> None:
    """Noise of nothing at all leaves the latents as they were."""
    keywords: dict[str, Any] = {"num_inference_steps": STEPS, "output_type": "latent", "seed": 3}
    noise = np.random.default_rng(3).normal(size=(1, 4, 8, 8)).astype("float32")
    np.testing.assert_array_equal(bind(pipe, Around(factor=0.0))("a", **keywords), noise)
    assert abs(pipe("a", **keywords) - noise).max() > 0.1


def test_the_latest_is_asked_first(pipe: ToyPipeline) -> None:
    notes: list[Any] = []
    bind(pipe, Around("first", notes), Around("second", notes))("a", num_inference_steps=1)
    assert [name for name, *_ in notes] == ["second", "first"]


def test_after_a_cut_it_is_handed_the_rows_that_are_left(pipe: ToyPipeline) -> None:
    around = Around()
    bind(pipe, around, CFGCutoff(0.4))("a", num_inference_steps=STEPS)
    assert [rows for _, _, rows, _ in around.notes] == [2, 2, 2, 1, 1]


def of_callback(step: Step) -> None:
    x = StrictTensor(np.zeros((1, 4, 8, 8), "float32"))
    step.pipeline.unet(x, 1.0, encoder_hidden_states=StrictTensor(np.zeros((1, 4), "float32")))


def of_another_pipeline(step: Step) -> None:
    other = ToyPipeline()
    other.unet = step.pipeline.unet
    other("b", num_inference_steps=2)


@pytest.mark.parametrize("call", [of_callback, of_another_pipeline])
def test_calls_of_others_are_not_its_own(pipe: ToyPipeline, call: Callable[[Step], None]) -> None:
    class Other(Callback):
        def on_step_end(self, step: Step) -> None:
            call(step)

    around = Around()
    bind(pipe, around, Other())("a", num_inference_steps=STEPS)
    assert len(around.notes) == STEPS


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_left_of_it(pipe: ToyPipeline, fails: bool) -> None:
    def fail(*_: Any) -> None:
        if fails:
            raise RuntimeError("as it should")

    before, around = dict(vars(pipe.unet)), Around()
    try:
        bind(pipe, around, fail)("a", num_inference_steps=STEPS)
    except RuntimeError:
        assert fails
    calls = len(around.notes)
    assert calls == (1 if fails else STEPS)
    assert (type(pipe.unet), vars(pipe.unet)) == (type(ToyPipeline().unet), before)
    pipe("a", num_inference_steps=STEPS)
    assert len(around.notes) == calls


def test_models_that_are_not_known() -> None:
    class Unknown(ToyPipeline):
        unicb_facts = PipelineFacts(source="this test", denoisers=(), latents="sd")

    class Late(Around):
        before_first_step = Callback.before_first_step

        def on_step_end(self, step: Step) -> None:
            step.run.around_models(self._answer)

    with pytest.raises(UnsupportedPipelineError, match="cannot answer for the models of Unknown"):
        bind(Unknown(), Late())("a", num_inference_steps=STEPS)
