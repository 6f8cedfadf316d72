"""PyTorch and MindSpore in one process: their pipelines, and a table of how far they are apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from figures import FIGURE, Distance, Figures, Noted

from unicb_mindspore import backend as mindspore_backend
from unicb_torch import backend as torch_backend

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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have one worker do what shares runs: the tests of a file, or of one scheduler in it."""
    for item in items:
        parameters = getattr(item, "callspec", None)
        scheduler = "" if parameters is None else parameters.params.get("scheduler", "")
        item.add_marker(pytest.mark.xdist_group(f"{item.path.name} {scheduler}"))


# The process that hands out tests to workers needs no framework: only fixtures import them.


@pytest.fixture(scope="session")
def pipes() -> dict[str, Any]:
    """The shapes checkpoint on each framework."""
    from recording import load
    from sides import SIDES

    return {name: load(side) for name, side in SIDES.items()}


@pytest.fixture(scope="session")
def tiny() -> dict[str, Any]:
    """A tiny text-to-image pipeline with random weights on each framework."""
    from sides import SIDES

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
    backends = (torch_backend, mindspore_backend)
    versions = [part for backend in backends for part in backend.versions().items()]
    terminalreporter.section("PyTorch and MindSpore: absolute differences, the shapes checkpoint")
    terminalreporter.line(
        ", ".join(f"{name} {version}" for name, version in dict(versions).items())
    )
    terminalreporter.line("pictures and previews in levels of 255")
    for line in figures.table():
        terminalreporter.line(line)
