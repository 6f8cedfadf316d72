"""The quickstart and the README's examples, on this framework."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_quickstart(quickstart: Callable[..., Path]) -> None:
    out = quickstart("--framework", "torch", "--steps", "6")
    assert names(out) == ["contact_sheet.png", "picture.png", "previews"]
    assert names(out / "previews") == [f"{step:03d}.png" for step in range(6)]
    picture = Image.open(out / "picture.png")
    assert picture.size == (64, 64)
    assert np.asarray(picture).std() > 10


def test_quickstart_stops(quickstart: Callable[..., Path]) -> None:
    out = quickstart("--framework", "torch", "--steps", "6", "--stop-at", "3")
    assert names(out / "previews") == [f"{step:03d}.png" for step in range(4)]
    assert Image.open(out / "picture.png").size == (64, 64)


def test_denoised_previews_show_the_picture_earlier(
    example: Callable[[str, str], list[list[float]]],
) -> None:
    """At 12 of 25 steps a denoised preview is nearly the picture, and a noisy one is noise."""
    table = example("noisy_and_denoised", "torch")
    rows = {int(step): (noisy, denoised) for step, noisy, denoised in table}
    assert sorted(rows) == list(range(0, 25, 3))
    assert rows[12][0] < 0.5 < 0.8 < rows[12][1]
    assert all(denoised >= noisy for noisy, denoised in rows.values())


def test_interrupted_runs_give_the_picture(
    example: Callable[..., list[list[float]]],
) -> None:
    """Denoised, it is nearer by far, wherever the run is stopped."""
    table = example("interrupted", "torch", "--prompts", "2")
    assert [row[0] for row in table] == [15, 30, 45]
    assert all(denoised < latents / 2 for _, latents, denoised in table)


def test_decoders_show_more_than_colours(
    example: Callable[[str, str], list[list[float]]],
) -> None:
    """The pipeline's own VAE makes the picture itself in the end; the tiny one nearly does."""
    rows = {int(step): r for step, *r in example("decoders", "torch")}
    assert sorted(rows) == list(range(0, 25, 8))
    linear, tiny, full = rows[24]
    assert 0.9 < linear < 1
    assert 0.99 < tiny < 1
    assert full == 1  # of three digits
    assert 0.85 < rows[8][0] < min(rows[8][1:])


def test_own_callbacks(own_callbacks: Callable[[str], list[str]]) -> None:
    pictures = [f"{step:02d}-{index}.png" for step in range(4) for index in range(2)]
    assert own_callbacks("torch") == sorted([*pictures, "picture-0.png", "picture-1.png"])


def test_readme(run_readme: Callable[[str, str], Path]) -> None:
    folder = run_readme("from diffusers", "from mindone")
    assert Image.open(folder / "star.png").size == (64, 64)
    assert "049.png" in names(folder / "steps")  # 50 steps, by diffusers' default
