"""Guidance rules against diffusers' own guiders, and in half precision."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import ways
from diffusers import guiders
from test_composes import error
from test_composes_compile import Tracer, in_place, unet
from test_composes_memory import model_offload

from unicb import (
    AdaptiveProjectedGuidance,
    ClassifierFreeZeroStarGuidance,
    GuidanceRescale,
    GuidanceRule,
    TangentialClassifierFreeGuidance,
    UnsupportedPipelineError,
    bind,
)
from unicb.guidance import _rule
from unicb.testing import Case
from unicb_torch.harness import harness
from zoo.entry import CASES

SCALE = 4.0


class Plain(GuidanceRule):
    def combine(self, unconditional: Any, conditional: Any, scale: Any, step: Any) -> Any:
        return unconditional + (conditional - unconditional) * scale


#: Of each name, our rule and diffusers' guider. Zeros are for models that predict a velocity.
METHODS: dict[str, tuple[Callable[[], GuidanceRule], Callable[[], Any]]] = {
    "plain": (lambda: Plain(SCALE), lambda: guiders.ClassifierFreeGuidance(SCALE)),
    "adaptive": (
        lambda: AdaptiveProjectedGuidance(SCALE, eta=0.0, norm=2.5, momentum=-0.5),
        lambda: guiders.AdaptiveProjectedGuidance(
            SCALE,
            adaptive_projected_guidance_momentum=-0.5,
            adaptive_projected_guidance_rescale=2.5,
            eta=0.0,
        ),
    ),
    "adaptive, as it is": (
        lambda: AdaptiveProjectedGuidance(SCALE),
        lambda: guiders.AdaptiveProjectedGuidance(SCALE),
    ),
    "zero star": (
        lambda: ClassifierFreeZeroStarGuidance(SCALE, zero_init_steps=0),
        lambda: guiders.ClassifierFreeZeroStarGuidance(SCALE, zero_init_steps=0),
    ),
    "tangential": (
        lambda: TangentialClassifierFreeGuidance(SCALE),
        lambda: guiders.TangentialClassifierFreeGuidance(SCALE),
    ),
    "rescaled": (
        lambda: GuidanceRescale(Plain(SCALE), 0.7),
        lambda: guiders.ClassifierFreeGuidance(SCALE, guidance_rescale=0.7),
    ),
}


class Guided:
    """Makes of a denoiser's answers those with which the loop's own formula gives what diffusers'
    guider makes of them."""

    def __init__(self, guider: Any, scale: float, batched: bool) -> None:
        self.guider, self.scale, self.batched = guider, scale, batched
        self.calls, self.conditional = 0, None
        guider.set_state(step=0, num_inference_steps=100, timestep=torch.tensor(0))
        guider.prepare_inputs({"x": (torch.zeros(1), torch.zeros(1))})

    def __call__(self, module: Any, args: Any, output: Any) -> Any:
        out = output if isinstance(output, torch.Tensor) else output[0]
        self.calls += 1
        if self.batched:
            u, c = out.chunk(2)
            p = self._prediction(u, c)
            new = torch.cat([p, p])  # of which any scale makes p
        elif self.calls % 2:
            self.conditional = out
            return None
        else:
            c = self.conditional
            new = c - (self._prediction(out, c) - c) / (self.scale - 1)
        return (new,) if isinstance(output, tuple) else type(output)(new)

    def _prediction(self, u: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        step = (self.calls - 1) // (1 if self.batched else 2)
        self.guider.set_state(step=step, num_inference_steps=100, timestep=torch.tensor(0))
        return self.guider.forward(c, u).pred


@contextmanager
def guided(model: Any, guider: Any, scale: float, batched: bool) -> Any:
    handle = model.register_forward_hook(Guided(guider, scale, batched))
    try:
        yield
    finally:
        handle.remove()


@pytest.mark.parametrize("prompts", [1, 2])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["text2img", "controlnet-img2img", "xl-text2img"])
def test_as_diffusers_guiders(kind: str, method: str, prompts: int) -> None:
    rule, guider = METHODS[method]
    pipe, case = harness.build(kind), Case(kind, prompts=prompts, steps=4)
    with guided(pipe.unet, guider(), case.guidance_scale, batched=True):
        wanted = harness.run(pipe, case)
    assert error(harness.run(pipe, case), wanted) > 1e-2
    assert error(harness.run(pipe, case, **bind(pipe, rule())), wanted) < 1e-5


@pytest.mark.parametrize("kind", ["ip-adapter", "controlnet-multi", "inpaint", "order-2"])
def test_in_company_of_other_conditions(kind: str) -> None:
    """And with half steps, each of which is a step for a guider's momentum as well."""
    rule, guider = METHODS["adaptive"]
    pipe, case = harness.build(kind), Case(kind, steps=4)
    with guided(pipe.unet, guider(), case.guidance_scale, batched=True):
        wanted = harness.run(pipe, case)
    assert error(harness.run(pipe, case), wanted) > 1e-2
    assert error(harness.run(pipe, case, **bind(pipe, rule())), wanted) < 1e-5


def test_beside_guidance_rescale() -> None:
    """The loop rescales what the rule has made, as it does what it makes itself."""
    pipe, case = harness.build("rescale"), Case("rescale", prompts=2, steps=4)
    wanted = harness.run(pipe, replace(case, guidance_scale=SCALE))
    assert error(harness.run(pipe, case), wanted) > 1e-2
    assert error(harness.run(pipe, case, **bind(pipe, Plain(SCALE))), wanted) < 1e-5


ZERO = (
    lambda: ClassifierFreeZeroStarGuidance(SCALE, zero_init_steps=1),
    lambda: guiders.ClassifierFreeZeroStarGuidance(SCALE, zero_init_steps=1),
)
METHODS_OF_VELOCITIES = {**METHODS, "zeros": ZERO}


@pytest.mark.parametrize("method", METHODS_OF_VELOCITIES)
@pytest.mark.parametrize("title", ["FluxPipeline", "WanPipeline"])
def test_as_diffusers_guiders_where_guidance_is_two_calls(title: str, method: str) -> None:
    rule, guider = METHODS_OF_VELOCITIES[method]
    fx, entry = ways.framework("torch"), ways.all_entries("torch")[title]
    pipe = ways.pipeline("torch", title)
    name = "true_cfg_scale" if title == "FluxPipeline" else "guidance_scale"

    def call(**more: Any) -> Any:
        given = {**entry.arguments(fx, pipe, CASES["two prompts"]), name: 3.0}
        return pipe(**given, **more)[0].float().numpy()

    with guided(pipe.transformer, guider(), 3.0, batched=False):
        wanted = call()
    assert error(call(), wanted) > 1e-2
    assert error(call(**bind(pipe, rule())), wanted) < 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["text2img", "controlnet-img2img"])
def test_in_half_precision(kind: str, dtype: Any) -> None:
    """A rule is no further from itself in float32 than a plain call from itself."""
    pipe, found = harness.build(kind), {}
    for each in (torch.float32, dtype):
        pipe.to(dtype=each)
        given = {
            name: value.to(each) if isinstance(value, torch.Tensor) else value
            for name, value in harness.arguments(Case(kind, steps=4)).items()
        }
        for rule in (None, Plain(7.0)):
            scale = 7.0 if rule is None else 5.0
            callbacks: Any = {} if rule is None else bind(pipe, rule)
            out = pipe(
                **given,
                guidance_scale=scale,
                generator=torch.Generator().manual_seed(0),
                output_type="latent",
                **callbacks,
            )[0]
            found[each, rule is None] = out.float().numpy()
    exact = found[torch.float32, True]
    assert error(found[torch.float32, False], exact) < 1e-5

    def rms(name: Any) -> float:
        return float(np.sqrt(((found[name] - exact) ** 2).mean()))

    assert 0 < rms((dtype, False)) < 1.25 * rms((dtype, True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_scale_next_to_off_in_half_precision(dtype: Any) -> None:
    """Refused where the loop keeps a copy of it, as it would amplify rounding; else it is set."""
    name = str(dtype).removeprefix("torch.")
    for kind, refused in (("text2img", False), ("controlnet-img2img", True)):
        pipe = harness.build(kind).to(dtype=dtype)
        given = {
            key: value.to(dtype) if isinstance(value, torch.Tensor) else value
            for key, value in harness.arguments(Case(kind, steps=2)).items()
        }

        def call(scale: float, pipe: Any = pipe, given: Any = given, **more: Any) -> Any:
            noise = torch.Generator().manual_seed(0)
            more |= {"generator": noise, "output_type": "latent", "guidance_scale": scale}
            return pipe(**given, **more)[0].float().numpy()

        if refused:
            with pytest.raises(UnsupportedPipelineError, match=f"predicts in {name}, .* amplify"):
                call(1.01, **bind(pipe, Plain(5.0)))
        else:
            assert error(call(1.01, **bind(pipe, Plain(5.0))), call(5.0)) < 0.2
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.parametrize(("name", "most"), [("bfloat16", 0.1), ("float16", 0.1), ("float32", 1e-4)])
def test_what_is_refused_is_what_rounding_spoils(
    name: str, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a share of what guidance does, in one step of a loop that keeps a copy of its scale."""
    dtype = getattr(torch, name)
    pipe = harness.build("controlnet-img2img").to(dtype=dtype)
    case = Case("controlnet-img2img", steps=1)
    given = {
        key: value.to(dtype) if isinstance(value, torch.Tensor) else value
        for key, value in harness.arguments(case).items()
    }

    def call(scale: float, **more: Any) -> Any:
        more |= {"generator": torch.Generator().manual_seed(0), "output_type": "latent"}
        return pipe(**given, guidance_scale=scale, **more)[0].float().numpy()

    wanted = call(5.0)
    effect = np.abs(wanted - call(1.0)).max()

    def off(distance: float) -> float:
        found = call(1.0 + distance, **bind(pipe, Plain(5.0)))
        return float(np.abs(found - wanted).max() / effect)

    least = _rule.LEAST[name]
    monkeypatch.setattr(_rule, "LEAST", {})
    print(name, [(d, off(least * d)) for d in (10, 3, 1, 0.3, 0.1, 0.03, 0.01)])
    assert off(least) < most
    assert off(least * 0.02) > most


def test_on_a_compiled_denoiser() -> None:
    pipe, call, name, shape = unet()
    rule = AdaptiveProjectedGuidance(SCALE, momentum=-0.5, interval=(0.0, 0.4))
    expected = call(**bind(pipe, rule))
    tracer = Tracer()
    tracer.shape = shape
    in_place(pipe, name, tracer)
    for _ in range(2):
        tracer.rows.clear()
        assert error(call(**bind(pipe, rule)), expected) < 1e-5
        assert tracer.rows == [4, 4, 2, 2]
    assert tracer.graphs == 2


def test_beside_model_offload() -> None:
    pipe, case = harness.build("text2img"), Case("text2img", prompts=2)
    rule = AdaptiveProjectedGuidance(SCALE, momentum=-0.5, interval=(0.0, 0.4))
    expected = harness.run(pipe, case, **bind(pipe, rule))
    model_offload(pipe)
    plain = harness.run(pipe, case)
    for _ in range(2):
        assert np.array_equal(harness.run(pipe, case, **bind(pipe, rule)), expected)
    assert np.array_equal(harness.run(pipe, case), plain)
