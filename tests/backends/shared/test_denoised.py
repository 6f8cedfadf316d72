"""The denoised estimate on the frameworks' schedulers, beside the x0 that they use themselves."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import denoised_runs as runs
import pytest
import ways
from here import NAME, backend, diffusers, harness, on

from unicb import bind
from unicb.latents.denoised import DenoisedEstimate
from unicb.latents.schedules import known_schedulers
from unicb.testing import Case


@pytest.fixture(autouse=True)
def _seeded() -> None:
    ways.framework(NAME).seed()
    diffusers.utils.logging.set_verbosity_error()


#: Beside torch, nothing installs scipy, which LMS needs; mindone's is run in its stead.
EXACT = [c for c in runs.EXACT if c.name != "LMSDiscreteScheduler" or find_spec("scipy")]


def broken(case: runs.Case) -> str:
    """Why mindone 0.5.0 itself cannot run a case on a CPU; empty if it can."""
    if NAME == "torch":
        return ""
    if case.name == "DEISMultistepScheduler" and case.config.get("solver_order", 2) > 1:
        return "step: divides a tensor by a numpy scalar, which MindSpore 2.7.0 refuses"
    return ""


def starts() -> Iterator[tuple[runs.Case, int]]:
    """Each case from its first timestep and, as a run that begins with a picture, from its fifth;
    on MindSpore, where they take long, the latter with the first settings of each class."""
    seen: set[str] = set()
    for case in EXACT:
        yield case, 0
        if NAME == "torch" or case.name not in seen:
            yield case, 4
        seen.add(case.name)


@pytest.mark.parametrize(("case", "start"), list(starts()), ids=str)
def test_exact(case: runs.Case, start: int) -> None:
    if broken(case):  # and if it is not any more, this says so
        with pytest.raises((TypeError, RuntimeError), match="Div"):
            runs.run(case, start)
        return
    runs.check_exact(case, runs.run(case, start))


@pytest.mark.parametrize("case", runs.ESTIMATED, ids=str)
def test_estimate_is_better_than_noise(case: runs.Case) -> None:
    assert DenoisedEstimate.kind_of(runs.build(case)) == "estimate"
    for step in runs.run(case)[1:]:
        assert step.estimate is not None
        assert runs.correlation(step.estimate, step.truth) >= runs.correlation(
            step.latents, step.truth
        )


def library_schedulers() -> set[str]:
    structure = diffusers.schedulers._import_structure
    names = {name for listed in structure.values() for name in listed}
    names |= {name for name in dir(diffusers) if name.startswith(("LMS", "Cosine", "DPMSolverSDE"))}
    return {name for name in names if name.endswith("Scheduler")}


def test_every_scheduler_is_classified() -> None:
    """A new one is to be read, and to get an entry in schedulers.toml."""
    assert library_schedulers() - set(known_schedulers()) == set()
    assert len(library_schedulers()) > on(torch=40, mindspore=35)


@pytest.mark.parametrize("name", ["EulerAncestralDiscreteScheduler", "LCMScheduler"])
def test_noisy_ones_are_refused(name: str) -> None:
    scheduler = getattr(diffusers, name)()
    assert DenoisedEstimate.kind_of(scheduler) is None
    with pytest.raises(ValueError, match=f"of {name} cannot be computed"):
        DenoisedEstimate(scheduler, backend.ops)


def test_settings_decide() -> None:
    kind = DenoisedEstimate.kind_of
    assert kind(diffusers.DDIMScheduler(clip_sample=True)) == "estimate"
    assert kind(diffusers.DDIMScheduler(clip_sample=False, thresholding=True)) is None
    assert kind(diffusers.CogVideoXDDIMScheduler(clip_sample=True)) == "exact"
    assert kind(diffusers.FlowMatchEulerDiscreteScheduler()) == "exact"
    assert kind(diffusers.FlowMatchEulerDiscreteScheduler(stochastic_sampling=True)) is None
    assert kind(diffusers.EulerAncestralDiscreteScheduler()) is None


def test_subclass_is_known_unless_it_steps_otherwise() -> None:
    plain = type("Plain", (diffusers.EulerDiscreteScheduler,), {})
    other = type("Other", (diffusers.EulerDiscreteScheduler,), {"step": lambda self: None})
    assert DenoisedEstimate.kind_of(plain()) == "exact"
    assert DenoisedEstimate.kind_of(other()) is None


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
