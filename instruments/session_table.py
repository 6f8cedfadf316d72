"""The last lines of a run of nox: its sessions, their tests, and their seconds."""

from __future__ import annotations

import json
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Row:
    """One session.

    Attributes:
        outcome: how the session ended, or "running".
        tests: number of tests that passed, failed and were skipped.
        seconds: duration since the end of the session before, including the making of the
            environment.
        beside: True if it ran beside others, within the seconds of the row above.
    """

    session: str
    outcome: str = "running"
    tests: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    beside: bool = False


def read_rows(file: Path) -> list[Row]:
    """Return the rows that another process has saved; none, if it saved none."""
    if not file.exists():
        return []
    saved = json.loads(file.read_text("utf-8"))
    return [Row(**{**row, "tests": Counter(row["tests"])}) for row in saved]


class SessionTable:
    """Note each session as it runs.

    Where it ends early, by an error, by Ctrl-C, or because it is skipped, its row says so.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.rows: list[Row] = []
        self._clock = clock
        self._last_end = clock()

    @contextmanager
    def row(self, session: str) -> Iterator[None]:
        """Note the session that runs inside of the ``with`` block."""
        row = Row(session)
        self.rows.append(row)
        try:
            yield
        except BaseException as error:
            if row.outcome == "running":
                row.outcome = "failed" if isinstance(error, Exception) else "interrupted"
            raise
        else:
            row.outcome = "passed"
        finally:
            end = self._clock()
            row.seconds, self._last_end = end - self._last_end, end

    def skip(self) -> None:
        """Say that what the session ends with, now, is no failure."""
        self.rows[-1].outcome = "skipped"

    def count(self, report: Path) -> None:
        """Add the tests of a report that pytest wrote (``--junit-xml``); none, if it wrote none."""
        if not report.exists():
            return
        for test in ElementTree.parse(report).iter("testcase"):
            outcome = {part.tag for part in test}
            failed, skipped = outcome & {"failure", "error"}, "skipped" in outcome
            self.rows[-1].tests["failed" if failed else "skipped" if skipped else "passed"] += 1

    def add_beside(self, rows: Iterable[Row]) -> None:
        """Add sessions that ran side by side within the session that is being noted."""
        for row in rows:
            row.beside = True
            self.rows.append(row)

    def save(self, file: Path) -> None:
        """Write the rows to a file, for another process to show."""
        file.write_text(json.dumps([vars(row) for row in self.rows]), "utf-8")

    def lines(self) -> list[str]:
        """Return the table; nothing, where no session ran."""
        if not self.rows:
            return []
        total = Row("together", "", sum((row.tests for row in self.rows), Counter()))
        total.seconds = sum(row.seconds for row in self.rows if not row.beside)
        columns = ("passed", "failed", "skipped")
        cells = [("session", "", *(f"tests {column}" for column in columns), "seconds")]
        for row in (*self.rows, total):
            tests = [str(row.tests[column] or "") for column in columns]
            name = f"  {row.session}" if row.beside else row.session
            cells.append((name, row.outcome, *tests, f"{row.seconds:.0f}"))
        widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
        return [
            "  ".join(
                cell.ljust(width) if i < 2 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
            for line in cells
        ]

    def print(self) -> None:
        """Print the table, below an empty line."""
        if self.rows:
            print("", *self.lines(), sep="\n", flush=True)
