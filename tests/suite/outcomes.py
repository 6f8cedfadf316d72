"""What came of running the suite on every mutant."""

from __future__ import annotations

import ast
import inspect
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from mutants import MUTANTS
from mutation import MATRIX, Mutant


@dataclass(frozen=True)
class Outcome:
    """How a check went on a mutant, with one of its parameters.

    Attributes:
        when: "call", or "setup" or "teardown" where something failed there.
        error: names of the exception's class and its bases; None where the check passed.
        message: what the exception says.
        line: file and line of the suite where it was raised.
    """

    mutant: str
    check: str
    when: str
    error: list[str] | None
    message: str | None
    line: str | None

    def is_failed_assertion(self) -> bool:
        return self.when == "call" and "AssertionError" in (self.error or [])

    def is_kill(self, mutant: Mutant) -> bool:
        """Whether the check itself failed, in a way that the mutant's fault can be seen by."""
        by_error = mutant.error is not None and mutant.error.__name__ in (self.error or [])
        return self.is_failed_assertion() or (self.when == "call" and by_error)


class Outcomes:
    def __init__(self, outcomes: list[Outcome]) -> None:
        self.all = outcomes

    @classmethod
    def record(cls, file: Path, *, matrix: bool) -> Self:
        """Run the suite on all mutants, in another process (see ``record.py``)."""
        command = [sys.executable, str(Path(__file__).with_name("record.py")), str(file)]
        env = {**os.environ, MATRIX: "1"} if matrix else None
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=900)
        if done.returncode != 0:
            raise RuntimeError(f"recording failed:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
        return cls([Outcome(**entry) for entry in json.loads(file.read_text())])

    def of(self, mutant: Mutant, check: str | None = None) -> list[Outcome]:
        ours = [outcome for outcome in self.all if outcome.mutant == mutant.name]
        return [outcome for outcome in ours if check in (None, outcome.check)]

    def kills(self, mutant: Mutant, check: str) -> bool:
        return any(outcome.is_kill(mutant) for outcome in self.of(mutant, check))

    def table(self, checks: list[str], width: int) -> Iterator[str]:
        """For each check the mutants that are meant for it, and how many more it fails on."""
        for check in checks:
            killers = [mutant for mutant in MUTANTS if self.kills(mutant, check)]
            meant = [mutant.name for mutant in killers if check in mutant.kills]
            rest = len(killers) - len(meant)
            cell = "; ".join(meant or ["NOTHING"]) + (f" (+{rest})" if rest else "")
            yield check.removeprefix("test_")
            yield from textwrap.wrap(cell, width, initial_indent="    ", subsequent_indent="    ")

    def unreached(self, suite: type) -> list[str]:
        """Assertions of the suite that no mutant makes fail."""
        failed = {outcome.line for outcome in self.all}
        return [
            f"{lines[0]}  {text}" for lines, text in _assertions(suite) if failed.isdisjoint(lines)
        ]


def _assertions(suite: type) -> Iterator[tuple[list[str], str]]:
    """The lines of every assertion, as in :attr:`Outcome.line`, and its text."""
    modules = {base.__module__ for base in suite.__mro__ if base.__module__ != "builtins"}
    for path in sorted(Path(inspect.getfile(sys.modules[name])) for name in modules):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Assert):
                yield _lines(path, node.lineno, node.end_lineno), ast.unparse(node)
            elif isinstance(node, ast.With) and "pytest.raises" in ast.unparse(node.items[0]):
                last = node.items[-1].context_expr.end_lineno
                yield _lines(path, node.lineno, last), ast.unparse(node.items[0])


def _lines(path: Path, first: int, last: int | None) -> list[str]:
    return [f"{path.name}:{line}" for line in range(first, (last or first) + 1)]
