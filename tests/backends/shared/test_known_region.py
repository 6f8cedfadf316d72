"""Inpainting: previews have the given picture where it is given."""

from __future__ import annotations

from typing import Any

import known_region as known
import pytest
from here import NAME, on
from ways import framework

UNIPC = "UniPCMultistepScheduler"
INPAINT = known.PAINTING[0]
#: On MindSpore, where runs take long, one class of each kind, and a scheduler that keeps an output.
CLASSES = on(torch=known.PAINTING, mindspore=(INPAINT, known.PAINTING[5]))
PNDM: tuple[str, dict[str, Any]] = ("PNDMScheduler", {"skip_prk_steps": True, "steps_offset": 1})
SCHEDULERS = on(
    torch=(
        ("DPMSolverMultistepScheduler", {}),
        ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", "solver_order": 3}),
        ("DEISMultistepScheduler", {}),
        PNDM,
        ("EulerDiscreteScheduler", {}),
    ),
    mindspore=(PNDM,),
)
KINDS = on(torch=("StableDiffusion", "StableDiffusionXL"), mindspore=("StableDiffusion",))


@pytest.mark.parametrize(("family", "title"), CLASSES)
def test_of_every_class(family: str, title: str) -> None:
    found = known.run(framework(NAME), family, title, UNIPC)
    known.check_known(found.frames)
    known.check_known(found.decoded)
    known.check_guessed(found)


@pytest.mark.parametrize(("scheduler", "config"), SCHEDULERS)
def test_of_every_kind_of_scheduler(scheduler: str, config: dict[str, Any]) -> None:
    found = known.run(framework(NAME), *INPAINT, scheduler, **config)
    known.check_known(found.frames)
    known.check_known(found.decoded)


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_of_9_channels_paints_all(kind: str) -> None:
    title = f"{kind}InpaintPipeline (9 channels)"
    known.check_all_guessed(known.run(framework(NAME), "stable_diffusion", title, UNIPC))
