"""The quickstart and the README's examples, on this framework."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from here import NAME, on
from PIL import Image


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_quickstart_stops(quickstart: Callable[..., Path]) -> None:
    out = quickstart("--framework", NAME, "--steps", "6", "--stop-at", "3")
    assert names(out) == ["contact_sheet.png", "picture.png", "previews"]
    assert names(out / "previews") == [f"{step:03d}.png" for step in range(4)]
    picture = Image.open(out / "picture.png")
    assert picture.size == (64, 64)
    assert np.asarray(picture).std() > 10


def test_own_loop_draws_what_the_pipeline_draws(
    own_loop: Callable[..., Path], quickstart: Callable[..., Path]
) -> None:
    """Cut at the same step, interrupted after the same, from the same noise."""
    asked = ("--framework", NAME, "--steps", "6", "--stop-at", "4")
    own, whole = own_loop(*asked), quickstart(*asked)
    assert names(own / "previews") == names(whole / "previews")
    for name in ("picture.png", "previews/004.png"):
        a, b = (np.asarray(Image.open(out / name)).astype(int) for out in (own, whole))
        assert a.std() > 10
        assert np.abs(a - b).max() <= 1


def test_decoders_show_more_than_colours(
    example: Callable[[str, str], list[list[float]]],
) -> None:
    """The pipeline's own VAE makes the picture itself in the end; the tiny one nearly does."""
    rows = {int(step): r for step, *r in example("decoders", NAME)}
    assert sorted(rows) == list(range(0, 25, 8))
    linear, tiny, full = rows[24]
    assert 0.9 < linear < 1
    assert 0.99 < tiny < 1
    assert full == 1  # of three digits
    assert 0.85 < rows[8][0] < min(rows[8][1:])


def test_own_callbacks(own_callbacks: Callable[[str], list[str]]) -> None:
    pictures = [f"{step:02d}-{index}.png" for step in range(4) for index in range(2)]
    assert own_callbacks(NAME) == sorted([*pictures, "picture-0.png", "picture-1.png"])


def test_readme(run_readme: Callable[..., Path]) -> None:
    """Its block for this framework; those that follow it name none, and are run on PyTorch. The one
    for MindSpore has to come before mindone is imported, as in a new process."""
    torch, mindspore = "from diffusers", "from mindone"
    folder = on(
        torch=lambda: run_readme(torch, mindspore),
        mindspore=lambda: run_readme(mindspore, torch, only=mindspore),
    )()
    assert Image.open(folder / "star.png").size == (64, 64)
    assert "049.png" in names(folder / "steps")  # 50 steps, by diffusers' default


TAB = on(torch="PyTorch", mindspore="MindSpore")


def test_first_page(run_page: Callable[..., Path]) -> None:
    folder = run_page("docs/index.md", TAB)
    assert Image.open(folder / "star.png").size == (64, 64)


def test_first_run(run_page: Callable[..., Path]) -> None:
    folder = run_page("docs/first_run.md", TAB)
    assert {"full.png", "cut.png", "stopped.png", "steps", "stopped"} <= {*names(folder)}


def test_install(run_page: Callable[..., Path]) -> None:
    run_page("docs/install.md", TAB)
