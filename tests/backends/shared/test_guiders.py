"""The frameworks' own guiders on their classic pipelines, against plain calls and unicb's rules."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
import ways
from here import NAME, backend, diffusers, harness, on

from unicb import (
    AdaptiveProjectedGuidance,
    ClassifierFreeZeroStarGuidance,
    GuidanceRescale,
    GuidanceRule,
    TangentialClassifierFreeGuidance,
    UnsupportedPipelineError,
    bind,
)
from unicb.testing import Case
from zoo.entry import CASES
from zoo.measure import error

guiders: Any = import_module(f"{diffusers.__name__}.guiders")
SCALE = 3.0


class Plain(GuidanceRule):
    def combine(self, unconditional: Any, conditional: Any, scale: Any, step: Any) -> Any:
        return unconditional + (conditional - unconditional) * scale


#: Guiders and the rules that do the same.
SAME: dict[str, tuple[Callable[[], Any], Callable[[], GuidanceRule]]] = {
    "plain": (lambda: guiders.ClassifierFreeGuidance(SCALE), lambda: Plain(SCALE)),
    "rescaled": (
        lambda: guiders.ClassifierFreeGuidance(SCALE, guidance_rescale=0.5),
        lambda: GuidanceRescale(Plain(SCALE), 0.5),
    ),
    "in an interval": (
        lambda: guiders.ClassifierFreeGuidance(SCALE, stop=0.5),
        lambda: Plain(SCALE, (0.0, 0.25)),
    ),
    "zero star": (
        lambda: guiders.ClassifierFreeZeroStarGuidance(SCALE, zero_init_steps=0),
        lambda: ClassifierFreeZeroStarGuidance(SCALE, zero_init_steps=0),
    ),
    "adaptive": (
        lambda: guiders.AdaptiveProjectedGuidance(
            SCALE, adaptive_projected_guidance_momentum=-0.5, eta=0.5
        ),
        lambda: AdaptiveProjectedGuidance(SCALE, eta=0.5, momentum=-0.5),
    ),
    "tangential": (
        lambda: guiders.TangentialClassifierFreeGuidance(SCALE),
        lambda: TangentialClassifierFreeGuidance(SCALE),
    ),
}
#: What fails by itself, and in which words: of mindone 0.5.0 on MindSpore 2.7.0.
FAILS = on(
    torch={},
    mindspore={
        "adaptive": "TypeError: .*norm.* unexpected keyword argument 'p'",
        "tangential": "AttributeError: .*'svd'",
    },
)


@pytest.mark.parametrize("prompts", [1, 2])
@pytest.mark.parametrize("name", SAME)
def test_a_guider_and_the_rule_that_does_the_same(name: str, prompts: int) -> None:
    guider, rule = SAME[name]
    pipe, case = harness.build("text2img"), Case("text2img", prompts=prompts, steps=4)
    if name in FAILS:
        with pytest.raises(UnsupportedPipelineError, match=f"fails in its own .*{FAILS[name]}"):
            bind(pipe, guider())
        return
    wanted = harness.run(pipe, case, **bind(pipe, rule()))
    assert error(harness.run(pipe, case), wanted) > 1e-2
    assert error(harness.run(pipe, case, **bind(pipe, guider())), wanted) < 1e-5


@pytest.mark.parametrize(
    ("title", "same"), [("FluxPipeline", SCALE), ("Kandinsky3Pipeline", SCALE - 1)]
)
def test_where_guidance_is_two_calls(title: str, same: float) -> None:
    """And where the loop's scale is less by one than a guider's: it starts from c."""
    fx, entry = ways.framework(NAME), ways.all_entries(NAME)[title]
    pipe = ways.pipeline(NAME, title)

    def call(scale: float, **more: Any) -> Any:
        given = entry.arguments(fx, pipe, CASES["one prompt"])
        name = "true_cfg_scale" if "true_cfg_scale" in given else "guidance_scale"
        return backend.ops.to_numpy(pipe(**{**given, name: scale}, **more)[0])

    wanted = call(same)
    assert error(call(6.0), wanted) > 1e-2
    found = call(6.0, **bind(pipe, guiders.ClassifierFreeGuidance(SCALE)))
    assert error(found, wanted) < 1e-5


@pytest.mark.parametrize(
    ("guider", "reason"),
    [
        (lambda: guiders.SkipLayerGuidance(skip_layer_guidance_layers=[0]), "needs pred_cond_skip"),
        (
            lambda: guiders.AutoGuidance(auto_guidance_layers=[0], dropout=1.0),
            "changes the denoiser for one of its predictions",
        ),
        (
            lambda: guiders.ClassifierFreeZeroStarGuidance(SCALE),
            r"steps of 0 .* takes epsilon; pass zero_init_steps=0",
        ),
    ],
)
def test_what_is_refused(guider: Callable[[], Any], reason: str) -> None:
    with pytest.raises(UnsupportedPipelineError, match=reason):
        bind(harness.build("text2img"), guider())
