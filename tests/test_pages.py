"""The examples on these pages run, and print what the pages say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from unicb_numpy.pipelines import ToyPipeline

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    ("page", "at_least"),
    [("stopping.md", 9), ("migrating.md", 3), ("callbacks.md", 3), ("guidance_rules.md", 6)],
)
def test_examples(
    pipe: ToyPipeline, capsys: pytest.CaptureFixture[str], page: str, at_least: int
) -> None:
    names: dict[str, Any] = {"pipe": pipe}
    blocks = BLOCK.findall((DOCS / page).read_text("utf-8"))
    assert len(blocks) >= at_least
    for language, text in blocks:
        if language == "python":
            capsys.readouterr()
            exec(compile(text, page, "exec"), names)
        else:
            assert capsys.readouterr().out == text
