"""diffusers' modular pipelines, with each of its guiders, and a part of the zoo's."""

from __future__ import annotations

from collections.abc import Callable as Function
from typing import Any

import numpy as np
import pytest
from diffusers import guiders
from diffusers.hooks import LayerSkipConfig, SmoothedEnergyGuidanceConfig

from unicb import (
    AdaptiveProjectedGuidance,
    CFGCutoff,
    GuidanceInterval,
    Progress,
    UnsupportedPipelineError,
    bind,
)
from unicb.pipelines.modular import blocks_of
from zoo.entry import Request
from zoo.framework import Torch
from zoo.measure import error
from zoo.modular.entries import modular_entries
from zoo.modular.entry import ModularEntry
from zoo.modular.measure import Measured

FX = Torch()
CUT, STEPS = 3, 8
BLOCK = "mid_block.attentions.0.transformer_blocks"
SKIPPED = LayerSkipConfig([0], BLOCK, skip_attention=True)
PERTURBED = LayerSkipConfig(
    [0], BLOCK, skip_attention=False, skip_ff=False, skip_attention_scores=True
)
SMOOTHED = SmoothedEnergyGuidanceConfig([0], BLOCK)
#: Their constructors, with what is left of their arguments.
GUIDERS: dict[str, Function[..., Any]] = {
    "classifier-free": lambda **more: guiders.ClassifierFreeGuidance(5.0, **more),
    "rescaled": lambda **more: guiders.ClassifierFreeGuidance(5.0, guidance_rescale=0.7, **more),
    "original formulation": lambda **more: guiders.ClassifierFreeGuidance(
        5.0, use_original_formulation=True, **more
    ),
    "adaptive projected": lambda **more: guiders.AdaptiveProjectedGuidance(
        5.0, adaptive_projected_guidance_momentum=-0.5, **more
    ),
    "adaptive projected, mixed": lambda **more: guiders.AdaptiveProjectedMixGuidance(5.0, **more),
    "zero-star": lambda **more: guiders.ClassifierFreeZeroStarGuidance(5.0, **more),
    "tangential": lambda **more: guiders.TangentialClassifierFreeGuidance(5.0, **more),
    "auto": lambda **more: guiders.AutoGuidance(5.0, auto_guidance_config=SKIPPED, **more),
    "skip-layer": lambda **more: guiders.SkipLayerGuidance(
        5.0, 2.0, 0.0, 1.0, skip_layer_config=SKIPPED, **more
    ),
    "perturbed": lambda **more: guiders.PerturbedAttentionGuidance(
        5.0, 2.0, 0.0, 1.0, perturbed_guidance_config=PERTURBED, **more
    ),
    "smoothed energy": lambda **more: guiders.SmoothedEnergyGuidance(
        5.0, 2.0, seg_guidance_config=SMOOTHED, **more
    ),
}


def entry(name: str) -> ModularEntry:
    return next(x for x in modular_entries() if x.name == name)


SDXL = entry("StableDiffusionXLModularPipeline")


@pytest.fixture(scope="module")
def parts() -> dict[str, Any]:
    """Its models: of two that are made, each has weights of its own."""
    return SDXL.parts(FX)


def called(call: Function[..., Any]) -> Any:
    return call(**SDXL.arguments(FX, Request(steps=STEPS)), output="latents").numpy()


def cut_by_hand(make: Function[..., Any]) -> Any:
    """A guider that is cut: by itself, where it only guides; where it does more, it combines the
    conditional prediction in the place of the unconditional one."""
    guider = make()
    if len(guider._input_predictions) == 2:
        return make(stop=(CUT + 1) / STEPS)
    plain = guider.forward

    def forward(pred_cond: Any, pred_uncond: Any = None, **more: Any) -> Any:
        is_cut = guider._step > CUT and pred_uncond is not None
        return plain(pred_cond, pred_cond if is_cut else pred_uncond, **more)

    guider.forward = forward
    return guider


@pytest.mark.parametrize("title", GUIDERS)
def test_a_cut_is_exact_with_every_guider(title: str, parts: dict[str, Any]) -> None:
    make = GUIDERS[title]
    pipe = SDXL.build(FX, **parts, guider=make())
    plain = called(pipe)
    expected = called(SDXL.build(FX, **parts, guider=cut_by_hand(make)))
    calls = [0]
    counting = pipe.unet.conv_in.register_forward_pre_hook(
        lambda *_: calls.__setitem__(0, calls[0] + 1)
    )
    called(pipe)
    before, calls[0] = calls[0], 0
    got = called(bind(pipe, CFGCutoff(cutoff_step_index=CUT)))
    assert calls[0] == before - (STEPS - CUT - 1)
    counting.remove()
    assert np.array_equal(got, expected)
    assert error(plain, expected) > 1e-3
    assert np.array_equal(called(pipe), plain)


@pytest.mark.parametrize("title", ["classifier-free", "adaptive projected", "skip-layer"])
def test_a_guider_starts_and_stops_within_an_interval(title: str, parts: dict[str, Any]) -> None:
    make = GUIDERS[title]
    pipe = SDXL.build(FX, **parts, guider=make())
    guider = make()
    plain = guider.forward

    def forward(pred_cond: Any, pred_uncond: Any = None, **more: Any) -> Any:
        inside = 2 <= guider._step <= 6
        return plain(pred_cond, pred_uncond if inside else pred_cond, **more)

    if title == "adaptive projected":  # outside, it must keep nothing
        guider = make(start=2 / STEPS, stop=7 / STEPS)
    else:
        guider.forward = forward
    expected = called(SDXL.build(FX, **parts, guider=guider))
    got = called(bind(pipe, GuidanceInterval(0.25, 0.75)))
    assert error(got, expected) < 1e-6


def test_a_guider_of_somebodys_own_is_asked(parts: dict[str, Any]) -> None:
    class Halved(guiders.ClassifierFreeGuidance):  # type: ignore[misc]
        def forward(self, pred_cond: Any, pred_uncond: Any = None) -> Any:
            made = super().forward(pred_cond, pred_uncond)
            if pred_uncond is not None:
                made.pred = made.pred * 0.5
            return made

    pipe = SDXL.build(FX, **parts, guider=Halved(5.0))
    expected = called(SDXL.build(FX, **parts, guider=Halved(5.0, stop=(CUT + 1) / STEPS)))
    assert np.array_equal(called(bind(pipe, CFGCutoff(cutoff_step_index=CUT))), expected)


@pytest.mark.parametrize(
    "name",
    [
        "Wan22ModularPipeline",
        "LTX2ModularPipeline",
        "Ideogram4ModularPipeline",
        "HeliosPyramidModularPipeline",
    ],
)
def test_other_loops(name: str) -> None:
    found = Measured(entry(name), FX, Request()).all()
    if name == "LTX2ModularPipeline":
        assert "takes more predictions than the two" in found.why.pop("rule")
        assert found.verdicts.pop("rule") == "refused"
    assert found.why == {}
    assert {*found.verdicts.values()} == {"exact"}


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("MiniMaxMusic3ModularPipeline", "its loop changes latents otherwise than by scheduler"),
        ("WanAnimate2ModularPipeline", "not what it took from the last one"),
    ],
)
def test_loops_in_parts_are_refused(name: str, why: str) -> None:
    with pytest.raises(UnsupportedPipelineError, match=why):
        bind(getattr(FX.library, name)())


def test_adaptive_projected_guidance_is_that_of_the_guider(parts: dict[str, Any]) -> None:
    theirs = guiders.AdaptiveProjectedGuidance(
        5.0,
        adaptive_projected_guidance_momentum=-0.5,
        adaptive_projected_guidance_rescale=2.0,
        eta=0.5,
    )
    expected = called(SDXL.build(FX, **parts, guider=theirs))
    pipe = SDXL.build(FX, **parts, guider=guiders.ClassifierFreeGuidance(3.0))
    rule = AdaptiveProjectedGuidance(5.0, eta=0.5, norm=2.0, momentum=-0.5)
    assert error(called(bind(pipe, rule)), expected) < 1e-5


def test_progress_takes_the_place_of_the_loop_blocks_bar(
    parts: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    def bars() -> int:
        return capfd.readouterr().err.count(f"{STEPS}/{STEPS}")

    pipe = SDXL.build(FX, **parts)
    waiting = [blocks_of(pipe)]
    while waiting:
        block = waiting.pop()
        waiting.extend((getattr(block, "sub_blocks", None) or {}).values())
        if hasattr(block, "set_progress_bar_config"):
            block.set_progress_bar_config()
    states: list[Any] = []
    plain = called(pipe)
    assert bars() == 1
    assert np.array_equal(called(bind(pipe, Progress(states.append))), plain)
    assert (bars(), len(states)) == (0, STEPS)
    called(pipe)
    assert bars() == 1
