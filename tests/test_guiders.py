"""Guiders of the frameworks' own kind on toys of every way to guide."""

from __future__ import annotations

import pickle
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from guided import BatchOfLocal, Known, facts, watched
from test_guidance_rules import KINDS, PROMPTS, ROUNDING, Plain

from unicb import GuidanceRule, UnsupportedPipelineError, bind
from unicb_numpy.pipelines import ToyPipeline


class BaseGuidance:
    """What the frameworks' guiders derive from, as far as it is asked."""

    _identifier_key = "name"

    def __init__(self, scale: float, start: float = 0.0, stop: float = 1.0) -> None:
        self.scale, self.start, self.stop = scale, start, stop
        self.asked: list[tuple[int, int, Any]] = []
        self.kept: Any = None

    def set_state(self, step: int, num_inference_steps: int, timestep: Any) -> None:
        self._step, self._steps, self._timestep = step, num_inference_steps, timestep

    @property
    def num_conditions(self) -> int:
        first, last = int(self.start * self._steps), int(self.stop * self._steps)
        return 1 + (first <= self._step < last)

    def prepare_models(self, denoiser: Any) -> None: ...

    def prepare_inputs(self, data: Any, input_fields: Any) -> list[Any]:
        if self._step == 0:
            self.kept = None
        names = ("pred_cond", "pred_uncond")[: self.num_conditions]
        return [SimpleNamespace(name=name) for name in names]

    def __call__(self, batches: list[Any]) -> Any:
        self.asked.append((self._step, self._steps, self._timestep))
        found = {batch.name: batch.noise_pred for batch in batches}
        return SimpleNamespace(pred=self.forward(**found))

    def forward(self, pred_cond: Any, pred_uncond: Any = None) -> Any:
        if pred_uncond is None:
            return pred_cond
        return pred_uncond + (pred_cond - pred_uncond) * self.scale


class Momentum(BaseGuidance):
    def forward(self, pred_cond: Any, pred_uncond: Any = None) -> Any:
        difference = pred_cond - pred_uncond
        if self.kept is not None:
            difference = difference + self.kept * 0.5
        self.kept = difference
        return pred_uncond + difference * self.scale


#: Of a name that is known for leaving a conditional prediction alone as it is.
ClassifierFreeGuidance = type(
    "ClassifierFreeGuidance", (BaseGuidance,), {"__module__": "toys.guiders.plain"}
)


class RuleOfMomentum(GuidanceRule):
    def combine(self, unconditional: Any, conditional: Any, scale: Any, step: Any) -> Any:
        difference = conditional - unconditional
        kept = step.state(self, list)
        difference = difference + kept.pop() * 0.5 if kept else difference
        kept.append(difference)
        return unconditional + difference * scale


@pytest.mark.parametrize("kind", KINDS)
def test_a_guider_is_as_its_formula_by_a_rule(kind: Any) -> None:
    pipe = kind()
    for rule, guider in ((Plain(3.0), BaseGuidance(3.0)), (RuleOfMomentum(3.0), Momentum(3.0))):
        wanted = pipe(PROMPTS, **bind(pipe, rule))
        callbacks = bind(pipe, guider)
        for _ in range(2):  # its momentum begins anew
            np.testing.assert_allclose(pipe(PROMPTS, **callbacks), wanted, **ROUNDING)
    assert not np.allclose(wanted, pipe(PROMPTS))


def test_it_is_told_the_step_and_not_touched() -> None:
    pipe, guider = BatchOfLocal(), BaseGuidance(3.0)
    callbacks = bind(pipe, guider)
    guider.asked.clear()
    pipe(PROMPTS, steps=3, **callbacks)
    assert [(step, steps) for step, steps, _ in guider.asked] == [(0, 3), (1, 3), (2, 3)]
    assert all(timestep is not None for _, _, timestep in guider.asked)
    assert not hasattr(guider, "_step")


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("interval", [(0.3, 0.6), (0.0, 0.5), (0.4, 1.0), (0.0, 0.0)])
def test_steps_that_it_leaves_out(interval: tuple[float, float], order: int) -> None:
    """Are the conditional prediction, and computed with half of the rows but for half steps."""
    pipe = Known(order)
    for guider in (BaseGuidance(3.0, *interval), ClassifierFreeGuidance(3.0, *interval)):
        with watched(pipe) as rows:
            found = pipe(PROMPTS, **bind(pipe, guider))
        told = sorted({index for index, *_ in guider.asked})
        if type(guider) is BaseGuidance:
            wanted = found
            assert {*rows} == {4}
        else:
            np.testing.assert_allclose(found, wanted, **ROUNDING)
            first, last = (int(share * len(rows)) for share in interval)
            guided = [first <= index < last for index in range(len(rows))]
            assert all(row == 4 for row, on in zip(rows, guided, strict=True) if on)
            assert rows.count(2) >= guided.count(False) - 2 * (order - 1)
            assert all(first - order < index < last + order for index in told)
    plain = pipe(PROMPTS, **bind(pipe, BaseGuidance(3.0)))
    assert not np.allclose(plain, found)


def test_a_guider_can_be_sent_before_it_is_bound() -> None:
    guider = Momentum(3.0)
    pipe = ToyPipeline()
    wanted = pipe(PROMPTS, output_type="latent", **bind(pipe, guider))
    sent = pickle.loads(pickle.dumps(guider))
    assert (pipe(PROMPTS, output_type="latent", **bind(pipe, sent)) == wanted).all()


# -- what is refused


class Third(BaseGuidance):
    def prepare_inputs(self, data: Any, input_fields: Any) -> list[Any]:
        return [*super().prepare_inputs(data, input_fields), SimpleNamespace(name="pred_third")]


class OfAnotherModel(BaseGuidance):
    def prepare_models(self, denoiser: Any) -> None: ...


class Zeros(BaseGuidance):
    zero_init_steps = 1


class Broken(BaseGuidance):
    def forward(self, pred_cond: Any, pred_uncond: Any = None) -> Any:
        raise AttributeError("no such operation")


class Other(BatchOfLocal):
    unicb_facts = facts(guidance_scale="local", combination="other")


def test_what_is_refused() -> None:
    pipe = BatchOfLocal()
    with pytest.raises(UnsupportedPipelineError, match="by a Third: it needs pred_third, of a"):
        bind(pipe, Third(3.0))
    with pytest.raises(UnsupportedPipelineError, match="OfAnotherModel: it changes the denoiser"):
        bind(pipe, OfAnotherModel(3.0))
    with pytest.raises(ValueError, match="both decide on guidance: Momentum and Plain"):
        bind(pipe, Momentum(3.0), Plain(2.0))
    with pytest.raises(UnsupportedPipelineError, match="not known to be u"):
        bind(Other(), Momentum(3.0))


def test_steps_of_zeros_are_for_velocities() -> None:
    pipe = BatchOfLocal()
    pipe.scheduler.config = SimpleNamespace(prediction_type="epsilon")
    with pytest.raises(UnsupportedPipelineError, match=r"steps of 0 .* takes epsilon"):
        bind(pipe, Zeros(3.0))


def test_one_that_fails_in_its_own_code() -> None:
    pipe = BatchOfLocal()
    with pytest.raises(AttributeError, match="no such") as raised:  # no tensor to try it with
        pipe(PROMPTS, **bind(pipe, Broken(3.0)))
    assert raised.value.__notes__ == ["raised by the Broken of test_guiders, in its own code"]
    pipe.scheduler.sigmas = pipe.start(["x"], 2, 5.0)[0]
    reason = r"the Broken of test_guiders fails in its own code on predictions of 4 axes, without"
    with pytest.raises(UnsupportedPipelineError, match=reason):
        bind(pipe, Broken(3.0))
