"""No class of unicb and its backends is longer than a reader takes in at once."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("unicb", "backends")
#: Lines that a class may have, with its docstrings.
LIMIT = 200


def long_classes(source: str, file: str) -> Iterator[str]:
    """Yield the classes that have too many lines, wherever they stand in a file."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef):
            assert node.end_lineno is not None
            if node.end_lineno - node.lineno + 1 > LIMIT:
                yield f"{file}: {node.name}"


@pytest.mark.parametrize("folder", FOLDERS)
def test_classes_are_small(folder: str) -> None:
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    found = {
        long
        for path in files
        for long in long_classes(path.read_text("utf-8"), path.relative_to(ROOT).as_posix())
    }
    assert not found, f"over {LIMIT} lines, with docstrings: move a part elsewhere"


@pytest.mark.parametrize(("lines", "found"), [(LIMIT, []), (LIMIT + 1, ["a.py: Long"])])
@pytest.mark.parametrize("inside", ["", "def f():\n", "class Outer:\n"])
def test_a_line_too_many_is_found(lines: int, found: list[str], inside: str) -> None:
    indent = "    " if inside else ""
    body = [f"{indent}class Long:", f'{indent}    """Say what it is."""']
    body += [f"{indent}    x = {number}" for number in range(lines - len(body))]
    source = inside + "\n".join(body)
    assert [each for each in long_classes(source, "a.py") if "Long" in each] == found
