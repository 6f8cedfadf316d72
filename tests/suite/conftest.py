"""Runs the suite on the mutants once for all tests here.

With ``--matrix`` every mutant is held against every check, rather than against those only that must
notice it, and which check fails on which is printed: ``nox -s mutants``.
"""

from __future__ import annotations

import pytest
from mutants import MUTANTS
from mutation import checks_of
from outcomes import Outcomes

_OUTCOMES = pytest.StashKey[Outcomes]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("mutants").addoption(
        "--matrix", action="store_true", help="hold every mutant against every check"
    )


@pytest.fixture(scope="session")
def outcomes(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    # Where this folder is not named on the command line, pytest knows no option of it.
    matrix = pytestconfig.getoption("matrix", False)
    file = tmp_path_factory.mktemp("mutants") / "outcomes.json"
    recorded = Outcomes.record(file, matrix=matrix)
    if matrix:
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
