"""Stop, Discard and ■ under a visitor's hands, while the cell runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from lab import Lab

from unicb.sinks import grid

STEPS = 1000


def check_stopped(lab: Lab, name: str) -> dict[str, Any]:
    """The run was interrupted with a picture, and nothing is left of it but one display."""
    lab.wait_until_done(name)
    told = lab.told(name)
    assert told["state"] == "interrupted"
    assert 20 <= told["step"] + 1 < STEPS
    assert told["size"] == [64, 64]
    assert told["threads"], "threads are left"
    assert told["hooks"] == "StableDiffusionPipelineUNet2DConditionModel"
    assert f"stopped after step {told['step'] + 1}/{STEPS}" in lab.words(name)
    assert lab.displays(name) == 1
    assert lab.buttons(name) == []
    return told


def test_stop_gives_the_picture_so_far(lab: Lab, screenshots: Path | None) -> None:
    lab.run("STOP")
    lab.wait_for_steps("STOP", 20)
    assert lab.is_running("STOP")
    assert lab.buttons("STOP") == ["Stop", "Discard"]
    assert (lab.displays("STOP"), lab.pictures("STOP")) == (1, 1)
    if screenshots is not None:
        lab.wait_for_steps("STOP", 400)
        lab.show("STOP").save(screenshots / "notebook.png", optimize=True)
    lab.click("STOP", "Stop")
    check_stopped(lab, "STOP")


def test_discard_raises(lab: Lab) -> None:
    lab.run("DISCARD")
    lab.wait_for_steps("DISCARD", 20)
    lab.click("DISCARD", "Discard")
    lab.wait_until_done("DISCARD")
    told, words = lab.told("DISCARD"), lab.words("DISCARD")
    assert told["state"] == "cancelled"
    assert told["size"] is None
    assert told["threads"], "threads are left"
    assert re.search(rf"discarded after step \d+/{STEPS}", words)
    assert "GenerationCancelled: generation was cancelled after step" in words
    assert "Traceback" not in words
    assert lab.displays("DISCARD") == 1
    assert lab.buttons("DISCARD") == []


def test_interrupting_the_kernel_gives_the_picture_so_far(lab: Lab) -> None:
    lab.run("INTERRUPT")
    lab.wait_for_steps("INTERRUPT", 20)
    lab.interrupt_kernel()
    check_stopped(lab, "INTERRUPT")
    assert "KeyboardInterrupt" not in lab.words("INTERRUPT")


def test_a_cell_that_awaits(lab: Lab) -> None:
    lab.run("AWAIT")
    lab.wait_for_steps("AWAIT", 20)
    lab.click("AWAIT", "Stop")
    check_stopped(lab, "AWAIT")


PHONE = 390


@pytest.mark.parametrize(("width", "columns"), [(900, 4), (PHONE, 2)])
def test_several_pictures_have_room(
    lab: Lab, width: int, columns: int, screenshots: Path | None
) -> None:
    lab.tab.set_viewport_size({"width": width, "height": 800})
    lab.run("SEVERAL")
    lab.wait_for_steps("SEVERAL", 20)
    boxes = lab.boxes("SEVERAL")
    buttons = lab.cell("SEVERAL").get_by_role("button", name="Discard").bounding_box()
    colours = lab.colours("SEVERAL")
    if screenshots is not None and width == PHONE:
        lab.wait_for_steps("SEVERAL", 300)
        both = [lab.show("SEVERAL", scheme) for scheme in ("light", "dark")]
        grid(both, gap=16, background="white").save(
            screenshots / "notebook_phone.png", optimize=True
        )
    lab.click("SEVERAL", "Stop")
    lab.wait_until_done("SEVERAL")
    lab.tab.set_viewport_size({"width": 900, "height": 800})
    assert len(boxes) == 4
    assert len({round(box["y"]) for box in boxes}) == 4 // columns
    assert all(box["x"] + box["width"] <= width for box in [*boxes, buttons])
    assert {round(box["width"] - box["height"]) for box in boxes} == {0}
    assert contrast(*colours["light"]) > 7
    assert contrast(*colours["dark"]) > 7


def contrast(text: tuple[int, ...], ground: tuple[int, ...]) -> float:
    """Of two colours, as https://www.w3.org/TR/WCAG21/#dfn-contrast-ratio has it."""

    def luminance(colour: tuple[int, ...]) -> float:
        parts = [x / 255 for x in colour]
        r, g, b = [x / 12.92 if x <= 0.03928 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    dark, light = sorted([luminance(text), luminance(ground)])
    return (light + 0.05) / (dark + 0.05)
