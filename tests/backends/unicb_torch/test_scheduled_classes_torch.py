"""Classes of diffusers that call no step-end callback: doubled rows, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from scheduled_runs import EXACT, FX, STEPS, Look, built, plain
from without_callback import looked_at

from unicb import GuidanceInterval, UnsupportedPipelineError, bind
from unicb.pipelines.scheduled import scheduled_loop


def test_doubled_rows_cut_before_the_first_step() -> None:
    """The first step is computed whole, and made anew, for both copies of each row."""
    kind, pipe = built("DiTPipeline", "DDIMScheduler")
    expected, look = plain("DiTPipeline", "DDIMScheduler", guided=False), Look()
    with looked_at(FX, pipe, kind) as seen:
        bind(pipe, GuidanceInterval(0.9, 1.0), look)(**kind.arguments(FX, 2, STEPS, True))
    assert seen.rows == [4, 2, 2, 2, 2, 4]
    for ours, theirs in zip(look.latents[:5], expected.latents, strict=False):
        assert np.abs(ours - theirs).max() <= 10 * EXACT * theirs.std()  # of other numbers of rows
    assert np.abs(look.latents[5] - expected.latents[5]).max() > 200 * EXACT


def test_doubled_rows_that_are_scaled_are_refused() -> None:
    """Its loop keeps what the scheduler scales for the model."""
    _, pipe = built("DiTPipeline", "EulerDiscreteScheduler")
    with pytest.raises(UnsupportedPipelineError, match="a EulerDiscreteScheduler scales them"):
        bind(pipe, Look())


#: Classes, and why their steps cannot be told by their scheduler.
REFUSED = {
    "IFInpaintingPipeline": r"`intermediate_images = \(1 - mask_image\)",
    "IFInpaintingSuperResolutionPipeline": r"`intermediate_images = \(1 - mask_image\)",
    "KandinskyCombinedPipeline": "no loop that calls self.scheduler.step",
    "StableUnCLIPPipeline": "steps with prior_scheduler and scheduler",
    "StableDiffusionDiffEditPipeline": r"`latents = latents \* mask_image",
    "StableDiffusionParadigmsPipeline": "no loop that calls self.scheduler.step",
    "TextToVideoSDPipeline": r"`latents = latents\.permute",
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
