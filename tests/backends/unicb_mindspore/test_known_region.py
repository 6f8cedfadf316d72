"""Inpainting with mindone: previews have the given picture where it is given."""

from __future__ import annotations

import known_region as known
import pytest
from ways import framework

UNIPC = "UniPCMultistepScheduler"


@pytest.mark.parametrize(("family", "title"), [known.PAINTING[0], known.PAINTING[5]])
def test_of_one_class_of_each_kind(family: str, title: str) -> None:
    found = known.run(framework("mindspore"), family, title, UNIPC)
    known.check_known(found.frames)
    known.check_known(found.decoded)
    known.check_guessed(found)


def test_of_a_kept_output() -> None:
    config = {"skip_prk_steps": True, "steps_offset": 1}
    found = known.run(framework("mindspore"), *known.PAINTING[0], "PNDMScheduler", **config)
    known.check_known(found.frames)
    known.check_known(found.decoded)


def test_a_model_of_9_channels_paints_all() -> None:
    title = "StableDiffusionInpaintPipeline (9 channels)"
    known.check_all_guessed(known.run(framework("mindspore"), "stable_diffusion", title, UNIPC))
