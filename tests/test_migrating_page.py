"""The examples in docs/migrating.md run, and print what the page says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from unicb_numpy.pipelines import ToyPipeline

PAGE = Path(__file__).parents[1] / "docs" / "migrating.md"


def test_examples_of_the_page(pipe: ToyPipeline, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {"pipe": pipe}
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 3
    for language, text in blocks:
        if language == "python":
            capsys.readouterr()
            exec(compile(text, str(PAGE), "exec"), names)
        else:
            assert capsys.readouterr().out == text
