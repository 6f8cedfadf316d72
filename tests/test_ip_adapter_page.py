"""The examples in docs/callbacks/ip_adapter.md run, and print what the page says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from adapted import AdaptedPipeline

PAGE = Path(__file__).parents[1] / "docs" / "callbacks" / "ip_adapter.md"


class Seeing:
    """A callback beside which ``scales`` are those of each step's call of the UNet."""

    def __init__(self, pipe: AdaptedPipeline) -> None:
        self._pipe = pipe

    def __call__(self, pipeline: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> None:
        pass

    def clear(self) -> None:
        self._pipe.unet.seen.clear()

    @property
    def scales(self) -> list[float]:
        assert all(scale == step[0] for step in self._pipe.unet.seen for scale in step)
        return [step[0][0] for step in self._pipe.unet.seen]


def test_examples_of_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    pipe = AdaptedPipeline()
    names: dict[str, Any] = {"pipe": pipe, "see": Seeing(pipe)}
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 8
    for language, text in blocks:
        if language == "python":
            capsys.readouterr()
            exec(compile(text, str(PAGE), "exec"), names)
        else:
            assert capsys.readouterr().out == text
