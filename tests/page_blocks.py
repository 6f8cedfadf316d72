"""The blocks of the project's pages, and how they are run."""

from __future__ import annotations

import io
import linecache
import re
from contextlib import redirect_stdout
from pathlib import Path
from textwrap import dedent
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
_BLOCK = re.compile(
    r'^=== "(?P<tab>[^"]+)"$|'
    r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
#: What a Python block prints stands in the block after it, in one of these.
PRINTED = ("", "text")


class Block(NamedTuple):
    """A block of a page: of which tab (empty outside of tabs), in which language, and its text."""

    tab: str
    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    """All blocks of a page, from its first to its last."""
    found, tab = [], ""
    for match in _BLOCK.finditer(page.read_text("utf-8")):
        if match["tab"]:
            tab = match["tab"]
            continue
        inside = tab if match["indent"] else ""
        found.append(Block(inside, match["language"], dedent(match["text"])))
    return found


def pages() -> dict[str, Path]:
    """All pages with Python blocks, by their paths in the project."""
    folders = [ROOT / "docs", ROOT / "examples"]
    every = [*ROOT.glob("*.md"), *(file for folder in folders for file in folder.rglob("*.md"))]
    with_code = (p for p in sorted(every) if any(b.language == "python" for b in blocks(p)))
    return {page.relative_to(ROOT).as_posix(): page for page in with_code}


def run(page: Path, names: dict[str, Any], tab: str = "") -> int:
    """Run a page's Python blocks, those of a tab among them, in one namespace, and compare what
    each prints with what the page says; returns how many there were."""
    count, printed = 0, ""
    for block in blocks(page):
        if block.tab not in ("", tab):
            continue
        if block.language == "python":
            assert printed == "", f"{page.name} does not say that this is printed: {printed}"
            out, name = io.StringIO(), f"{page.name}, block {count}"
            # As of a file: tracebacks show it, and unicb reads how a loop of one's own is written.
            lines = block.text.splitlines(keepends=True)
            linecache.cache[name] = (len(block.text), None, lines, name)
            with redirect_stdout(out):
                exec(compile(block.text, name, "exec"), names)
            count, printed = count + 1, out.getvalue()
        elif block.language in PRINTED:
            assert printed == block.text, f"{page.name}: printed {printed!r}"
            printed = ""
    assert printed == "", f"{page.name} does not say that this is printed: {printed}"
    return count
