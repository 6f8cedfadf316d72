"""The examples in docs/callbacks/guidance.md run, and print what the page says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from guided import watched

from unicb import Callback, Step
from unicb_numpy.pipelines import ToyPipeline

PAGE = Path(__file__).parents[1] / "docs" / "callbacks" / "guidance.md"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class See(Callback):
    """What is noted of the steps."""

    def __init__(self, rows: list[int], scales: list[float]) -> None:
        self.rows, self.scales = rows, scales

    def clear(self) -> None:
        self.rows.clear()
        self.scales.clear()

    def on_step_end(self, step: Step) -> None: ...


class Reading(ToyPipeline):
    """Notes the scale that each step is guided with."""

    def __init__(self) -> None:
        super().__init__()
        self.scales: list[float] = []

    @property
    def guidance_scale(self) -> float:
        self.scales.append(self._guidance_scale)
        return self._guidance_scale


def test_examples_of_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    pipe = Reading()
    with watched(pipe) as rows:
        names: dict[str, Any] = {"pipe": pipe, "see": See(rows, pipe.scales)}
        blocks = BLOCK.findall(PAGE.read_text("utf-8"))
        assert len(blocks) == 6
        for language, text in blocks:
            if language == "python":
                capsys.readouterr()
                exec(compile(text, str(PAGE), "exec"), names)
            else:
                assert capsys.readouterr().out == text
    assert names["image"].shape == (8, 8, 4)
