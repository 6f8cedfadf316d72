"""Docstrings are sentences: a reader of the field needs the first one once."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("unicb", "backends", "examples", "benchmarks", "instruments")

#: A docstring that begins so has neither a subject nor an imperative verb, or has it late.
OPENERS = frozenset(
    re.findall(
        r"\w+",
        """
        And As At But By Called For From How If In Not Of Only Or Than That Those To What When Where
        Whether Which Who Whose Why With Without
        """,
    )
)
#: A function that returns something begins with the verb, not with what it returns.
NOUNS = frozenset(
    re.findall(
        r"\w+",
        """
        A All An Another Both Channels Copies Each Everything Facts Index Its Name Names None Number
        One Rows Some The Values
        """,
    )
)
#: Say "computed", "known" or "shown" for the first, and "space" or "arrays" for the second.
WORDS = re.compile(r"\b(?:(?:un)?told|rooms)\b", re.IGNORECASE)

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def documented(node: ast.AST, outer: str = "") -> Iterator[tuple[str, Documented, str]]:
    """Yield all that has a docstring: its name, its node, and the docstring in one line."""
    name = ".".join(filter(None, (outer, getattr(node, "name", ""))))
    if isinstance(node, Documented):
        docstring = ast.get_docstring(node)
        if docstring is not None:
            yield name or "the module", node, re.sub(r"\s+", " ", docstring).strip()
    for child in ast.iter_child_nodes(node):
        yield from documented(child, name if isinstance(node, Documented) else outer)


def returns_something(node: Documented) -> bool:
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or node.returns is None:
        return False
    return not is_promise(node) and ast.unparse(node.returns) != "None"


def is_promise(node: Documented) -> bool:
    """Return whether the docstring says what a check proves: it may begin as it likes."""
    return isinstance(node, ast.Module) or getattr(node, "name", "").startswith("test_")


def faults(source: str, file: str = "a file") -> list[str]:
    """List the docstrings that are no plain sentences: where each is, and what is wrong with it."""
    found = []
    for name, node, docstring in documented(ast.parse(source)):
        where = f'{file}: {name}: "{docstring.partition(". ")[0][:120]}"'
        first = re.split(r"\W", docstring)[0]
        if first in OPENERS:
            found.append(f"{where} begins with {first!r}: say who does what, or what it does")
        elif returns_something(node) and (first in NOUNS or not first[:1].isalpha()):
            found.append(f"{where} is no sentence: begin with a verb, such as Return")
        elif not is_promise(node) and re.match(r"\w+ of\b", docstring):
            found.append(f"{where} is no sentence: {first} is no verb here")
        found += [f"{where} has the word {word!r}" for word in WORDS.findall(docstring)]
    return found


@pytest.mark.parametrize("folder", FOLDERS)
def test_docstrings_are_sentences(folder: str) -> None:
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    found = [
        fault
        for path in files
        for fault in faults(path.read_text("utf-8"), path.relative_to(ROOT).as_posix())
    ]
    assert not found, "\n".join(found)


GOOD = '''
"""Read how a loop steps."""

class Target:
    """A target is what callbacks are bound to."""

    @property
    def scale(self) -> float:
        """Return the scale."""

    def step_end(self) -> None:
        """A step has ended."""
'''


@pytest.mark.parametrize(
    ("docstring", "fault"),
    [
        ("Those that acting early.", "begins with 'Those'"),
        ("Of time, and of this process's processor time.", "begins with 'Of'"),
        ("Whether it is on.", "begins with 'Whether'"),
        ("What's made of it.", "begins with 'What'"),
        ("As for the first,\n    so for the rest.", "begins with 'As'"),
        ("Called once.", "begins with 'Called'"),
        ("The pipeline's models.", "is no sentence"),
        ("``value``, if it is an int.", "is no sentence"),
        ("[rows, n]: a row for each result.", "is no sentence"),
        ("0 for what is no tensor.", "is no sentence"),
        ("Copy of a host array.", "Copy is no verb here"),
        ("Return what is untold.", "has the word 'untold'"),
        ("Return all.\n\n    It takes what it is told.", "has the word 'told'"),
        ("Return how many rooms there are.", "has the word 'rooms'"),
    ],
)
@pytest.mark.parametrize(
    "code", ["def f() -> int:\n    {}", "class C:\n  @property\n  def f(self) -> int:\n    {}"]
)
def test_bad_docstrings_are_found(code: str, docstring: str, fault: str) -> None:
    [found] = faults(code.format(f'"""{docstring}"""'), "unicb/some.py")
    name = "C.f" if "class" in code else "f"
    assert found.startswith(f'unicb/some.py: {name}: "{docstring.split()[0]}')
    assert fault in found


@pytest.mark.parametrize(
    "code", ['"""{}"""', 'class C:\n    """{}"""', 'async def f():\n    """{}"""']
)
def test_every_kind_of_docstring_is_read(code: str) -> None:
    [found] = faults(code.format("What it is."))
    assert "begins with 'What'" in found
    assert not faults(code.format("A step has ended."))


def test_sentences_pass() -> None:
    assert not faults(GOOD)
    assert not faults('def test_a() -> int:\n    """The cut is exact."""')  # a promise
    assert not faults('def f() -> None:\n    """The run is over."""')
    assert not faults("def f() -> int:\n    return 1")
