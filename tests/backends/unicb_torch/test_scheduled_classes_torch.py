"""Classes of diffusers that call no step-end callback: doubled rows, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import ways
from scheduled_runs import EXACT, FX, STEPS, Look, built, plain
from without_callback import looked_at

from unicb import GuidanceInterval, UnsupportedPipelineError, bind
from unicb.pipelines import facts_for
from unicb.pipelines.scheduled import scheduled_loop
from unicb.pipelines.target import Target
from zoo import previews
from zoo.entry import CASES
from zoo.fingerprints import taken_as


@pytest.mark.parametrize("proven", [True, False])
def test_doubled_rows_cut_before_the_first_step(proven: bool) -> None:
    """A first step that has to be looked at is computed whole, and made anew, for both copies of
    each row."""
    kind, pipe = built("DiTPipeline", "DDIMScheduler")
    expected, look = plain("DiTPipeline", "DDIMScheduler", guided=False), Look()
    with looked_at(FX, pipe, kind) as seen, taken_as(type(pipe), proven=proven):
        bind(pipe, GuidanceInterval(0.9, 1.0), look)(**kind.arguments(FX, 2, STEPS, True))
    assert seen.rows == [2 if proven else 4, 2, 2, 2, 2, 4]
    for ours, theirs in zip(look.latents[:5], expected.latents, strict=False):
        assert np.abs(ours - theirs).max() <= 10 * EXACT * theirs.std()  # of other numbers of rows
    assert np.abs(look.latents[5] - expected.latents[5]).max() > 200 * EXACT


def test_doubled_rows_that_are_scaled_are_refused() -> None:
    """Its loop keeps what the scheduler scales for the model."""
    _, pipe = built("DiTPipeline", "EulerDiscreteScheduler")
    with pytest.raises(UnsupportedPipelineError, match="a EulerDiscreteScheduler scales them"):
        bind(pipe, Look())


#: Classes, and why their steps cannot be seen from their scheduler's calls.
REFUSED = {
    "KandinskyCombinedPipeline": "no loop that calls self.scheduler.step",
    "StableDiffusionParadigmsPipeline": "no loop that calls self.scheduler.step",
    "StableDiffusionAttendAndExcitePipeline": "changes latents otherwise",
    "StableDiffusionGLIGENPipeline": "changes latents otherwise",
    "UnCLIPPipeline": "steps with decoder_scheduler",
    "RePaintPipeline": "exactly once",
    "KarrasVePipeline": "not what it took from the last one",
}


@pytest.mark.parametrize("name", REFUSED)
def test_classes_that_would_be_wrong(name: str) -> None:
    kind = getattr(FX.library, name)
    with pytest.raises(UnsupportedPipelineError, match=REFUSED[name]):
        scheduled_loop(kind)


@pytest.mark.parametrize("proven", [True, False])
def test_perturbed_attention_without_guidance(proven: bool) -> None:
    """Its class has no property that says whether guidance is on, but a local of its loop; the
    measure compares runs with guidance off, too."""
    name = "PixArtSigmaPAGPipeline"
    with taken_as(type(ways.pipeline("torch", name)), proven=proven):
        found = ways.outcome("torch", name, "one prompt")
    assert found is not None
    assert (found.verdict, found.why) == ("exact", "")


#: Their latents have the axes of pictures, or none, and are sound, tokens or embeddings.
NO_PICTURES = ("AudioLDMPipeline", "MusicLDMPipeline", "VQDiffusionPipeline", "ShapEPipeline")


@pytest.mark.parametrize("name", NO_PICTURES)
def test_what_is_no_picture_is_not_shown_as_one(name: str) -> None:
    kind = getattr(FX.library, name)
    with pytest.raises(UnsupportedPipelineError, match="not one picture or video"):
        Target(kind.__new__(kind), FX.backend, facts_for(kind.__new__(kind))).layout  # noqa: B018


def test_doubled_rows_in_what_a_scheduler_keeps() -> None:
    """PNDM keeps what DiT's loop steps: each row twice."""
    title = "DiTPipeline (PNDM)"
    entry, pipe = ways.all_entries("torch")[title], ways.pipeline("torch", title)
    shown = previews.measure(entry, FX, pipe, CASES["two prompts"])
    assert (shown.verdict, shown.why) == ("right", "")
