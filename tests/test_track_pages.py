"""The examples in the pages on callbacks that watch a run work, and print what the page says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from unicb_numpy.pipelines import ToyPipeline

FOLDER = Path(__file__).parents[1] / "docs" / "callbacks"


@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
@pytest.mark.parametrize("name", ["trajectory", "nan_guard", "timing", "correction"])
def test_examples_of_the_page(
    pipe: ToyPipeline,
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = FOLDER / f"{name}.md"
    text = page.read_text("utf-8")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"pipe": pipe}
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert any(language == "python" for language, _ in blocks)
    for language, block in blocks:
        if language == "python":
            capsys.readouterr()
            exec(compile(block, str(page), "exec"), names)
        else:
            assert capsys.readouterr().out == block
