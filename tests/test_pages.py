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
    blocks = BLOCK.findall((DOCS / page).read_text("utf-8"))
    assert len(blocks) >= at_least
    run_blocks(blocks, page, {"pipe": pipe}, capsys)


def test_serving_in_an_event_loop(pipe: ToyPipeline, capsys: pytest.CaptureFixture[str]) -> None:
    """The rest of that page is tested in tests/service and tests/ray, which have the packages."""
    text, fast_api, _ = (DOCS / "serving.md").read_text("utf-8").partition("\n## FastAPI\n")
    assert fast_api
    blocks = BLOCK.findall(text)
    assert len(blocks) == 4
    run_blocks(blocks, "serving.md", {"pipe": pipe}, capsys)


def run_blocks(
    blocks: list[tuple[str, str]],
    page: str,
    names: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Run those in Python; any other shows what the one before it prints."""
    for language, text in blocks:
        if language == "python":
            capsys.readouterr()
            exec(compile(text, page, "exec"), names)
        else:
            assert capsys.readouterr().out == text
