"""The examples of docs/explain.md run, and print what the page says, but for times and versions."""

from __future__ import annotations

import logging
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from unicb._cli import main

PAGE = Path(__file__).parents[1] / "docs" / "explain.md"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: Times, and what is installed here.
VARIES = (
    (r"\d+(\.\d+)?(e\+\d+)? (µs|ms|s)\b", "TIME"),
    (r"\b(Python|unicb|numpy|pillow) \d+(\.\w+)+", r"\1 VERSION"),
)


def plain(text: str) -> str:
    for pattern, name in VARIES:
        text = re.sub(pattern, name, text)
    return re.sub(r"\s+", " ", text).strip()


def test_examples(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    blocks = BLOCK.findall(PAGE.read_text("utf-8"))
    log = logging.getLogger("unicb")
    before = log.level, [*log.handlers]
    compared = 0
    try:
        for language, text in blocks:
            if language == "python":
                capsys.readouterr()
                exec(compile(text, PAGE.name, "exec"), names)
            elif language == "sh":
                capsys.readouterr()
                words = shlex.split(text)
                assert words[:3] == ["python", "-m", "unicb"]
                assert main(words[3:]) == 0
            else:
                assert plain(capsys.readouterr().out) == plain(text)
                compared += 1
    finally:
        log.level, log.handlers[:] = before
        log.manager._clear_cache()  # type: ignore[attr-defined]
    assert compared == 8
    assert len([*Path("steps").iterdir()]) == 8
