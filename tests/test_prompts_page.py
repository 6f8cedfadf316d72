"""The examples in docs/callbacks/prompts.md run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from unicb_numpy.pipelines import ToyPipeline

PAGE = Path(__file__).parents[1] / "docs" / "callbacks" / "prompts.md"


def test_examples_of_the_page(pipe: ToyPipeline) -> None:
    names: dict[str, Any] = {"pipe": pipe, "compel": lambda text: pipe.encode_prompt([text])}
    blocks = re.findall(
        r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    assert len(blocks) == 5
    for text in blocks:
        exec(compile(text, str(PAGE), "exec"), names)
    assert names["image"].shape == (8, 8, 4)
