"""Start, previews, stop, discard, on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Draw, Visit
from PIL import Image

PROMPT = "a red star on a blue background"
LONG = 1000


def apart(one: Image.Image, other: Image.Image) -> int:
    """The largest difference of two pictures of one size, in levels of 255."""
    pixels = [np.asarray(image.convert("RGB"), dtype=np.int16) for image in (one, other)]
    return int(np.abs(pixels[0] - pixels[1]).max())


def test_stop_shows_the_picture_so_far_and_discard_shows_none(
    visit: Visit, url: str, draw: Draw, screenshot: Path | None
) -> None:
    page = visit(url)
    assert page.shows_nothing()
    assert not page.is_running

    page.start(PROMPT, steps=LONG)
    previews = page.previews(3)
    assert [preview.size for preview in previews] == [(256, 256)] * 3
    assert not page.shows_picture()
    if screenshot is not None:
        page.wait_for_step_after(LONG // 2)
        screenshot.parent.mkdir(parents=True, exist_ok=True)
        page.tab.screenshot(path=screenshot)
    page.stop()
    picture = page.picture()
    page.wait_until_idle()
    done, count = page.bar()
    assert 0 < done < LONG == count
    assert page.status == f"step {done} of {LONG}: stopped"
    assert apart(picture, draw(PROMPT, steps=LONG, after=done)) <= 2

    page.start(PROMPT, steps=LONG)
    assert len(page.previews(2)) == 2
    assert not page.shows_picture()  # that of the run before is gone
    page.discard()
    page.wait_until_idle()
    assert page.shows_nothing()
    done, count = page.bar()
    assert 0 < done < LONG == count
    assert page.status == f"step {done} of {LONG}: discarded"


def test_a_run_that_is_let_alone_finishes(visit: Visit, url: str, draw: Draw) -> None:
    prompt, steps = "a green ring on a black background", 12
    page = visit(url)
    page.start(prompt, steps=steps, seed=3)
    picture = page.picture()
    page.wait_until_idle()
    assert page.status == f"step {steps} of {steps}: finished"
    assert page.bar() == (steps, steps)
    assert apart(picture, draw(prompt, steps=steps, after=steps, seed=3)) <= 2


def test_after_an_error_one_can_start_again(
    visit: Visit, url: str, webui: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        raise RuntimeError("no memory left")

    def failing(*args: Any, callbacks: list[Any], **kwargs: Any) -> Any:
        return stream(*args, callbacks=[*callbacks, fail], **kwargs)

    stream = webui.stream
    page = visit(url)
    monkeypatch.setattr(webui, "stream", failing)
    page.start(PROMPT, steps=12)
    page.wait_for_text("no memory left")
    page.wait_until_idle()
    assert page.shows_nothing()
    monkeypatch.undo()
    page.start(PROMPT, steps=12)
    assert page.picture().size == (64, 64)
