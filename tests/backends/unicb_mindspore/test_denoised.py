"""The denoised estimate on mindone's own schedulers, beside the x0 that they use themselves."""

from __future__ import annotations

from typing import Any

import denoised_runs as runs
import mindspore
import pytest

from unicb import bind
from unicb.latents.denoised import DenoisedEstimate
from unicb.latents.schedules import known_schedulers
from unicb.testing import Case
from unicb_mindspore import backend, enable_cpu
from unicb_mindspore.harness import harness

enable_cpu()
import mindone.diffusers as diffusers  # noqa: E402

SIDE = runs.Side(diffusers, backend.ops, mindspore.Tensor)


@pytest.fixture(autouse=True, scope="module")
def _cpu() -> None:
    enable_cpu()  # tests of the kernels themselves take them away again


def broken(case: runs.Case) -> str:
    """Why mindone 0.5.0 itself cannot run a case on a CPU; empty if it can."""
    if case.name == "IPNDMScheduler":
        return "set_timesteps: MindSpore's CPU has no Atan2Ext"
    if case.name == "DEISMultistepScheduler" and case.config.get("solver_order", 2) > 1:
        return "step: divides a tensor by a numpy scalar, which MindSpore 2.7.0 refuses"
    return ""


@pytest.mark.parametrize("start", [0, 4])
@pytest.mark.parametrize("case", runs.EXACT, ids=str)
def test_exact(case: runs.Case, start: int) -> None:
    if broken(case):  # and if it is not any more, this says so
        with pytest.raises((TypeError, RuntimeError), match=r"Div|Atan2"):
            runs.run(SIDE, case, start)
        return
    runs.check_exact(diffusers, case, runs.run(SIDE, case, start))


@pytest.mark.parametrize("case", runs.ESTIMATED, ids=str)
def test_estimate_is_better_than_noise(case: runs.Case) -> None:
    assert DenoisedEstimate.kind_of(SIDE.build(case)) == "estimate"
    for told in runs.run(SIDE, case)[1:]:
        assert told.estimate is not None
        assert runs.correlation(told.estimate, told.truth) >= runs.correlation(
            told.latents, told.truth
        )


def test_every_scheduler_is_classified() -> None:
    """A new one is to be read, and to get an entry in schedulers.toml."""
    structure = diffusers.schedulers._import_structure
    names = {name for listed in structure.values() for name in listed}
    found = {name for name in names if name.endswith("Scheduler")}
    assert found - set(known_schedulers()) == set()
    assert len(found) > 35


def test_settings_decide() -> None:
    kind = DenoisedEstimate.kind_of
    assert kind(diffusers.DDIMScheduler(clip_sample=True)) == "estimate"
    assert kind(diffusers.DDIMScheduler(clip_sample=False, thresholding=True)) is None
    assert kind(diffusers.FlowMatchEulerDiscreteScheduler(stochastic_sampling=True)) is None
    assert kind(diffusers.EulerAncestralDiscreteScheduler()) is None


@pytest.mark.parametrize(("kind", "more", "nones"), runs.PIPELINES)
def test_in_a_pipeline(
    kind: str, more: dict[str, Any], nones: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = harness.arguments
    monkeypatch.setattr(harness, "arguments", lambda case: given(case) | more)
    pipe = harness.build(kind)
    pipe.set_progress_bar_config(disable=True)
    watch = runs.watched(pipe)
    harness.run(pipe, Case(kind, steps=6), **bind(pipe, watch))
    runs.check_watched(watch, nones)


def test_inpainting_with_a_model_of_four_channels() -> None:
    pipe = harness.build("inpaint")
    pipe.set_progress_bar_config(disable=True)
    watch = runs.watched(pipe)
    harness.run(pipe, Case("inpaint", steps=6), **bind(pipe, watch))
    runs.check_inpainted(watch)
