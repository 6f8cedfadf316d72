"""Previews of the trained model's runs, held against the pictures that come out."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import preview_oracle as oracle
import pytest
from diffusers import AutoencoderTiny

IMAGES = 12
KINDS = ("linear", "vae", "tiny")


@cache
def pipeline() -> Any:
    made = oracle.generating.load_pipeline("torch", oracle.CHECKPOINT)
    return made


@cache
def plain() -> oracle.Seen:
    return oracle.run(pipeline(), IMAGES, previews=False)


@cache
def seen(kind: str) -> oracle.Seen:
    decoder: Any = {"linear": None, "vae": "vae"}.get(kind)
    if kind == "tiny":
        decoder = AutoencoderTiny.from_pretrained(oracle.CHECKPOINT / "tiny_vae")
    return oracle.run(pipeline(), IMAGES, decoder=decoder)


def test_the_checkpoints_own_colours_are_found() -> None:
    assert oracle.format_name(pipeline()) == "shapes"


@pytest.mark.parametrize("kind", KINDS)
def test_the_last_preview_shows_the_picture(
    kind: str, record_property: Callable[[str, object], None]
) -> None:
    oracle.check_last(kind, seen(kind), record_property)


@pytest.mark.parametrize("kind", KINDS)
def test_denoised_previews_show_it_early(
    kind: str, record_property: Callable[[str, object], None]
) -> None:
    oracle.check_early(kind, seen(kind), record_property)


@pytest.mark.parametrize("kind", KINDS)
def test_latents_have_the_same_bits(kind: str) -> None:
    oracle.check_latents(seen(kind), plain())
