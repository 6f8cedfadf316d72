"""Runs the suite on the mutants once for all tests here, and prints which check fails on which."""

from __future__ import annotations

import pytest
from mutants import MUTANTS
from mutation import checks_of
from outcomes import Outcomes

_OUTCOMES = pytest.StashKey[Outcomes]()


@pytest.fixture(scope="session")
def outcomes(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    recorded = Outcomes.record(tmp_path_factory.mktemp("mutants") / "outcomes.json")
    pytestconfig.stash[_OUTCOMES] = recorded
    return recorded


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    recorded = config.stash.get(_OUTCOMES, None)
    if recorded is None:
        return
    from unicb.testing import BackendSuite

    checks = checks_of(BackendSuite)
    terminalreporter.section(f"{len(checks)} checks, {len(MUTANTS)} mutants that make them fail")
    for line in recorded.table(checks, width=100):
        terminalreporter.line(line)
    terminalreporter.line("")
    terminalreporter.line("Assertions in the suite that no mutant makes fail:")
    for line in recorded.unreached(BackendSuite) or ["none"]:
        terminalreporter.line(f"    {line}")
