"""PyTorch and MindSpore in one process: their pipelines, and a table of how far they are apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from figures import FIGURE, Distance, Figures, Noted
from recording import load
from sides import SIDES

_FIGURES = pytest.StashKey[Figures]()


class _Collector:
    """Collects what tests have noted with their reports."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for name, value in report.user_properties:
            if name == FIGURE:
                scheduler, what, largest, mean = value
                self._figures.add(scheduler, what, Distance(largest, mean))


def pytest_configure(config: pytest.Config) -> None:
    figures = config.stash[_FIGURES] = Figures()
    config.pluginmanager.register(_Collector(figures))


@pytest.fixture(scope="session")
def pipes() -> dict[str, Any]:
    """The shapes checkpoint on each framework."""
    return {name: load(side) for name, side in SIDES.items()}


@pytest.fixture(scope="session")
def tiny() -> dict[str, Any]:
    """A tiny text-to-image pipeline with random weights on each framework."""
    return {name: side.harness.build("text2img") for name, side in SIDES.items()}


@pytest.fixture
def figures(record_property: Callable[[str, object], None]) -> Noted:
    """What the tests measure; printed at the end."""
    return Noted(record_property)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    figures = config.stash[_FIGURES]
    if not figures.rows:
        return
    versions = [part for side in SIDES.values() for part in side.harness.backend.versions().items()]
    terminalreporter.section("PyTorch and MindSpore: absolute differences, the shapes checkpoint")
    terminalreporter.line(
        ", ".join(f"{name} {version}" for name, version in dict(versions).items())
    )
    terminalreporter.line("pictures and previews in levels of 255")
    for line in figures.table():
        terminalreporter.line(line)
