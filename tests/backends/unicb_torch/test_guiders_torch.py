"""diffusers' guiders on classic pipelines, and rules, against diffusers' modular pipelines."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
import ways
from diffusers import guiders
from modular import Both, both
from test_composes import error
from test_guidance_rules_torch import METHODS_OF_VELOCITIES, guided

from unicb import Callback, CFGCutoff, Step, UnsupportedPipelineError, bind
from unicb.testing import Case
from unicb_torch.harness import harness
from zoo.entry import CASES

SCALE = 4.0
TITLES = ["StableDiffusionXLPipeline", "WanPipeline"]

#: Beside those that are held against a rule: guiders without one, and with steps left out.
GUIDERS: dict[str, Callable[[], Any]] = {
    **{name: guider for name, (_, guider) in METHODS_OF_VELOCITIES.items()},
    "mixed": lambda: guiders.AdaptiveProjectedMixGuidance(
        SCALE, adaptive_projected_guidance_start_step=1
    ),
    "in an interval": lambda: guiders.ClassifierFreeGuidance(SCALE, start=0.25, stop=0.75),
    "momentum, late": lambda: guiders.AdaptiveProjectedGuidance(
        SCALE, adaptive_projected_guidance_momentum=-0.5, start=0.25
    ),
    "zeros, late": lambda: guiders.ClassifierFreeZeroStarGuidance(
        SCALE, zero_init_steps=1, start=0.5
    ),
    "original": lambda: guiders.ClassifierFreeGuidance(2.0, use_original_formulation=True),
}


@cache
def pipelines(title: str, case: str) -> Both:
    return both(title, CASES[case])


def zeros_on_noise(title: str, name: str) -> bool:
    return title == "StableDiffusionXLPipeline" and name.startswith("zeros")


@pytest.mark.parametrize("case", ["one prompt", "two prompts"])
@pytest.mark.parametrize("name", GUIDERS)
@pytest.mark.parametrize("title", TITLES)
def test_a_guider_as_in_a_modular_pipeline(title: str, name: str, case: str) -> None:
    pair = pipelines(title, case)
    if zeros_on_noise(title, name):
        with pytest.raises(UnsupportedPipelineError, match=r"steps of 0 .* takes epsilon"):
            bind(pair.pipe, GUIDERS[name]())
        return
    wanted = pair.modular(GUIDERS[name]())
    assert error(pair.classic(), wanted) > 1e-2
    assert error(pair.classic(**bind(pair.pipe, GUIDERS[name]())), wanted) < 1e-5


@pytest.mark.parametrize("case", ["one prompt", "two prompts"])
@pytest.mark.parametrize("name", METHODS_OF_VELOCITIES)
@pytest.mark.parametrize("title", TITLES)
def test_a_rule_as_a_modular_pipeline_with_its_guider(title: str, name: str, case: str) -> None:
    pair = pipelines(title, case)
    if zeros_on_noise(title, name):
        return
    rule, guider = METHODS_OF_VELOCITIES[name]
    wanted = pair.modular(guider())
    assert error(pair.classic(), wanted) > 1e-2
    assert error(pair.classic(**bind(pair.pipe, rule())), wanted) < 1e-5


@pytest.mark.parametrize("name", [*METHODS_OF_VELOCITIES, "by magnitude"])
def test_on_flux(name: str) -> None:
    """Whose predictions are tokens, which magnitude-aware guidance takes."""
    fx, entry = ways.framework("torch"), ways.all_entries("torch")["FluxPipeline"]
    pipe = ways.pipeline("torch", "FluxPipeline")

    def guider() -> Any:
        if name == "by magnitude":
            return guiders.MagnitudeAwareGuidance(SCALE)
        return METHODS_OF_VELOCITIES[name][1]()

    def call(**more: Any) -> Any:
        given = {**entry.arguments(fx, pipe, CASES["two prompts"]), "true_cfg_scale": 3.0}
        return pipe(**given, **more)[0].float().numpy()

    with guided(pipe.transformer, guider(), 3.0, batched=False):
        wanted = call()
    assert error(call(), wanted) > 1e-2
    assert error(call(**bind(pipe, guider())), wanted) < 1e-5


def test_with_half_steps() -> None:
    """Each of which is a step for a guider."""
    pipe, case = harness.build("order-2"), Case("order-2", steps=4)
    _, guider = METHODS_OF_VELOCITIES["adaptive"]
    with guided(pipe.unet, guider(), case.guidance_scale, batched=True):
        wanted = harness.run(pipe, case)
    assert error(harness.run(pipe, case), wanted) > 1e-2
    assert error(harness.run(pipe, case, **bind(pipe, guider())), wanted) < 1e-5


# -- its state


def momentum() -> Any:
    return METHODS_OF_VELOCITIES["adaptive"][1]()


def test_one_guider_in_two_bindings_and_runs_inside_each_other() -> None:
    guider, case = momentum(), Case("text2img", steps=4)
    pipe, inner = harness.build("text2img"), harness.build("text2img")
    wanted = harness.run(pipe, case, **bind(pipe, guider))
    found: list[Any] = []

    class Inside(Callback):
        def on_step_end(self, step: Step) -> None:
            if step.index == 1:
                found.append(harness.run(inner, case, **bind(inner, guider)))

    callbacks = bind(pipe, guider, Inside())
    for _ in range(2):
        assert (harness.run(pipe, case, **callbacks) == wanted).all()
    assert len(found) == 2
    assert all((one == wanted).all() for one in found)
    assert guider._step is None
    assert guider.momentum_buffer is None


def test_what_is_set_on_a_guider_counts_in_the_next_run() -> None:
    guider, case = guiders.ClassifierFreeGuidance(SCALE), Case("text2img", steps=4)
    pipe = harness.build("text2img")
    callbacks = bind(pipe, guider)
    first = harness.run(pipe, case, **callbacks)
    guider.guidance_scale = 9.0
    again = harness.run(pipe, case, **callbacks)
    assert error(first, again) > 1e-2
    other = bind(pipe, guiders.ClassifierFreeGuidance(9.0))
    assert (harness.run(pipe, case, **other) == again).all()


def test_steps_without_guidance_are_computed_with_half_of_the_rows() -> None:
    pipe, rows = harness.build("text2img"), list[int]()
    handle = pipe.unet.conv_in.register_forward_pre_hook(lambda m, args: rows.append(len(args[0])))
    guider = guiders.ClassifierFreeGuidance(SCALE, start=0.25, stop=0.75)
    harness.run(pipe, Case("text2img", steps=4), **bind(pipe, guider))
    handle.remove()
    assert rows == [1, 2, 2, 1]


def test_a_guider_that_is_not_enabled() -> None:
    pipe, case = harness.build("text2img"), Case("text2img", steps=4)
    guider = guiders.ClassifierFreeGuidance(SCALE, enabled=False)
    found = harness.run(pipe, case, **bind(pipe, guider))
    wanted = harness.run(pipe, case, **bind(pipe, guiders.ClassifierFreeGuidance(1.0)))
    assert (found == wanted).all()
    assert error(found, harness.run(pipe, case)) > 1e-2


# -- guiders of one's own


class Own(guiders.BaseGuidance):
    """Plain guidance; what it needs, and whether it raises, is to be set."""

    _input_predictions = ("pred_cond", "pred_uncond")  # type: ignore[assignment]

    def __init__(self) -> None:
        self._input_predictions = list(type(self)._input_predictions)
        super().__init__()
        self.third_from, self.raises_at = 1000, 1000

    @property
    def num_conditions(self) -> int:
        return 2 + (self._step >= self.third_from)

    def prepare_inputs_from_block_state(self, data: Any, input_fields: Any) -> list[Any]:
        names = [*self._input_predictions, "pred_third"][: self.num_conditions]
        return [self._prepare_batch_from_block_state(input_fields, data, 0, name) for name in names]

    def forward(self, pred_cond: Any, pred_uncond: Any) -> Any:
        if self._step >= self.raises_at:
            raise ArithmeticError("not today")
        pred = pred_uncond + SCALE * (pred_cond - pred_uncond)
        return guiders.guider_utils.GuiderOutput(pred=pred)


def test_a_guider_of_ones_own() -> None:
    pipe, case = harness.build("text2img"), Case("text2img", steps=4)
    wanted = harness.run(pipe, case, **bind(pipe, guiders.ClassifierFreeGuidance(SCALE)))
    assert error(harness.run(pipe, case, **bind(pipe, Own())), wanted) < 1e-6


def test_one_that_raises_in_the_run_is_named() -> None:
    pipe, guider = harness.build("text2img"), Own()
    callbacks = bind(pipe, guider)
    guider.raises_at = 2
    with pytest.raises(ArithmeticError, match="not today") as raised:
        harness.run(pipe, Case("text2img", steps=4), **callbacks)
    assert any("raised by the Own of " in note for note in raised.value.__notes__)


def test_one_that_needs_a_third_prediction_only_later() -> None:
    pipe, guider = harness.build("text2img"), Own()
    callbacks = bind(pipe, guider)
    guider.third_from = 2
    with pytest.raises(UnsupportedPipelineError, match="the Own needs pred_third"):
        harness.run(pipe, Case("text2img", steps=4), **callbacks)
    guider.third_from = 0
    with pytest.raises(UnsupportedPipelineError, match="it needs pred_third, of a call"):
        bind(pipe, guider)


# -- what is refused


@pytest.mark.parametrize(
    ("guider", "reason"),
    [
        (lambda: guiders.SkipLayerGuidance(skip_layer_guidance_layers=[0]), "needs pred_cond_skip"),
        (
            lambda: guiders.PerturbedAttentionGuidance(perturbed_guidance_layers=[0]),
            "needs pred_cond_skip",
        ),
        (
            lambda: guiders.SmoothedEnergyGuidance(seg_guidance_layers=[0]),
            "needs pred_cond_seg",
        ),
        (
            lambda: guiders.AutoGuidance(auto_guidance_layers=[0], dropout=1.0),
            "changes the denoiser for one of its predictions",
        ),
        (lambda: guiders.LTX2Guidance(3.0), "takes estimates of the clean latents"),
        (
            lambda: guiders.MagnitudeAwareGuidance(3.0),
            r"MagnitudeAwareGuidance of diffusers fails in its own code on predictions of 4 axes",
        ),
    ],
)
def test_what_is_refused(guider: Callable[[], Any], reason: str) -> None:
    pipe = harness.build("text2img")
    with pytest.raises(UnsupportedPipelineError, match=reason):
        bind(pipe, guider())


def test_magnitude_aware_guidance_fails_by_itself() -> None:
    """As its refusal says."""
    guider = guiders.MagnitudeAwareGuidance(3.0)
    with pytest.raises(RuntimeError, match="dim must be a 2-tuple"):
        guider.forward(torch.ones(2, 4, 8, 8), torch.zeros(2, 4, 8, 8))
    assert guider.forward(torch.ones(2, 16, 4), torch.ones(2, 16, 4)).pred.shape == (2, 16, 4)


@pytest.mark.parametrize("other", [CFGCutoff(0.5), guiders.ClassifierFreeGuidance(2.0)])
def test_another_that_decides_on_guidance(other: Any) -> None:
    with pytest.raises(ValueError, match="both decide on guidance: ClassifierFreeGuidance and"):
        bind(harness.build("text2img"), guiders.ClassifierFreeGuidance(3.0), other)


def test_a_class_instead_of_an_object() -> None:
    with pytest.raises(TypeError, match=r"write ClassifierFreeGuidance\(\.\.\.\)"):
        bind(harness.build("text2img"), guiders.ClassifierFreeGuidance)
