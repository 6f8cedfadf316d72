"""Previews of the trained model's runs, held against the pictures that come out."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import preview_oracle as oracle
import pytest
from here import NAME
from shapes_model import CHECKPOINT, load

IMAGES = 4
KINDS = ("linear", "vae", "tiny")


@cache
def pipeline() -> Any:
    made = oracle.generating.load_pipeline(NAME, CHECKPOINT)
    oracle.run(made, IMAGES, previews=False, steps=1)  # a process's first run may differ in bits
    return made


@cache
def plain() -> oracle.Seen:
    return oracle.run(pipeline(), IMAGES, previews=False)


@cache
def seen() -> dict[str, oracle.Seen]:
    """One run for all kinds of preview."""
    decoders = {"linear": None, "vae": "vae", "tiny": load("AutoencoderTiny", "tiny_vae")}
    return oracle.run_once(pipeline(), IMAGES, decoders)


def test_the_checkpoints_own_colours_are_found() -> None:
    assert oracle.format_name(pipeline()) == "shapes"


@pytest.mark.parametrize("kind", KINDS)
def test_the_last_preview_shows_the_picture(
    kind: str, record_property: Callable[[str, object], None]
) -> None:
    oracle.check_last(kind, seen()[kind], record_property)


@pytest.mark.parametrize("kind", KINDS)
def test_denoised_previews_show_it_early(
    kind: str, record_property: Callable[[str, object], None]
) -> None:
    oracle.check_early(kind, seen()[kind], record_property)


def test_latents_have_the_same_bits() -> None:
    """With previews of all kinds as without any."""
    oracle.check_latents(seen()[KINDS[0]], plain())
