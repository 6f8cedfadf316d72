"""The examples that take their time, on this framework alone."""

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
    table = example("interrupted", "torch", "--prompts", "2", "--steps", "24")
    assert [row[0] for row in table] == [6, 12, 18]
    assert all(denoised < latents / 2 for _, latents, denoised in table)
