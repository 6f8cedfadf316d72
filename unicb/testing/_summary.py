"""Show the last screen of a conformance run: what passed, group by group, and on what."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from unicb.testing._groups import ABOUT, GROUP, about, name_of
from unicb.testing.harness import Harness

_OUTCOMES = ("passed", "expected failures", "skipped", "failed")


class Summary:
    """Count, as a pytest plug-in, the outcomes of each group of checks, in whichever process they
    run.

    Args:
        harness: the harness that is checked; None if only other processes load it, which then
            describe it.
    """

    def __init__(self, harness: Harness | None) -> None:
        self.about = [] if harness is None else about(harness)
        self.counts: dict[str, Counter[str]] = {}
        self.reasons: dict[str, str] = {}

    @property
    def passed(self) -> int:
        """Count the checks that passed, or failed as expected."""
        return sum(count["passed"] + count["expected failures"] for count in self.counts.values())

    def pytest_report_header(self) -> list[str]:
        return self.about[:1]

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take over a pytest-xdist process's description of what it has checked."""
        self.about = getattr(node, "workeroutput", {}).get(ABOUT, self.about)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        group = dict(report.user_properties).get(GROUP)
        outcome = _outcome(report)
        if group and outcome:
            self.counts.setdefault(str(group), Counter())[outcome] += 1
            if outcome == "expected failures":
                self.reasons[report.nodeid.rpartition("::")[2]] = report.wasxfail

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        write = terminalreporter.write_line
        terminalreporter.section("unicb conformance")
        for line in self.about[:1]:
            write(line)
        write("".join([" " * 12, *(f"{outcome:>20}" for outcome in _OUTCOMES)]))
        for group, count in self._in_order():
            write("".join([f"{group:12}", *(f"{count[outcome]:20}" for outcome in _OUTCOMES)]))
        for line in self.about[1:]:
            write(line)
        for name, reason in self.reasons.items():
            write(f"expected: {name}: {reason}")

    def _in_order(self) -> list[tuple[str, Counter[str]]]:
        """Return the groups in the suite's order; parallel processes finish them in another
        order."""
        from unicb.testing.suite import GROUPS  # only after pytest has set up assertion rewriting

        order = [name_of(group) for group in GROUPS]
        return sorted(
            self.counts.items(), key=lambda item: order.index(item[0]) if item[0] in order else -1
        )


def _outcome(report: pytest.TestReport) -> str | None:
    """Return a check's outcome from a report; None for reports of a setup or teardown that
    passed."""
    if report.failed:
        return "failed"
    if report.skipped:
        return "expected failures" if hasattr(report, "wasxfail") else "skipped"
    return "passed" if report.when == "call" else None
