"""The last screen of a conformance run: what passed, group by group, and on what."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from unicb.testing.harness import Harness, missing_capabilities

_OUTCOMES = ("passed", "expected failures", "skipped", "failed")


class Summary:
    """A pytest plug-in that counts the outcomes of each group of checks."""

    def __init__(self, harness: Harness) -> None:
        versions = [f"{name} {version}" for name, version in harness.backend.versions().items()]
        self.title = (
            f"unicb conformance suite, backend {harness.backend.name}: {', '.join(versions)}; "
            f"device: {harness.device}"
        )
        self.missing = ", ".join(missing_capabilities(harness))
        self.counts: dict[str, Counter[str]] = {}
        self.reasons: dict[str, str] = {}

    @property
    def passed(self) -> int:
        """How many checks passed, or failed as expected."""
        return sum(count["passed"] + count["expected failures"] for count in self.counts.values())

    def pytest_report_header(self) -> str:
        return self.title

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Let ``-k guidance`` choose a group."""
        for item in items:
            if group := _group(item):
                item.extra_keyword_matches.add(group)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Any:
        report: pytest.TestReport = yield
        group = _group(item)
        outcome = _outcome(report)
        if group and outcome:
            self.counts.setdefault(group, Counter())[outcome] += 1
            if outcome == "expected failures":
                self.reasons[item.name] = report.wasxfail
        return report

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        write = terminalreporter.write_line
        terminalreporter.section("unicb conformance")
        write(self.title)
        write("".join([" " * 12, *(f"{outcome:>20}" for outcome in _OUTCOMES)]))
        for group, count in self.counts.items():
            write("".join([f"{group:12}", *(f"{count[outcome]:20}" for outcome in _OUTCOMES)]))
        if self.missing:
            write(f"not covered, for the harness lists no such kind or dtype: {self.missing}")
        for name, reason in self.reasons.items():
            write(f"expected: {name}: {reason}")


def _group(item: pytest.Item) -> str | None:
    """The group that a check belongs to, by the class that defines it."""
    kind = getattr(item, "cls", None)
    name = getattr(item, "originalname", item.name)
    for base in getattr(kind, "__mro__", ()):
        if name in vars(base):
            return str(base.__name__).removesuffix("Checks").lower()
    return None


def _outcome(report: pytest.TestReport) -> str | None:
    """What a report means for its check; None for the parts of it that went well."""
    if report.failed:
        return "failed"
    if report.skipped:
        return "expected failures" if hasattr(report, "wasxfail") else "skipped"
    return "passed" if report.when == "call" else None
