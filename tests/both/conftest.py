"""PyTorch and MindSpore in one process: their pipelines, and a table of how far they are apart."""

from __future__ import annotations

from typing import Any

import pytest
from figures import Figures
from recording import load
from sides import SIDES

_FIGURES = pytest.StashKey[Figures]()


@pytest.fixture(scope="session")
def pipes() -> dict[str, Any]:
    """The shapes checkpoint on each framework."""
    return {name: load(side) for name, side in SIDES.items()}


@pytest.fixture(scope="session")
def tiny() -> dict[str, Any]:
    """A tiny text-to-image pipeline with random weights on each framework."""
    return {name: side.harness.build("text2img") for name, side in SIDES.items()}


@pytest.fixture(scope="session")
def figures(pytestconfig: pytest.Config) -> Figures:
    """What the tests measure; printed at the end."""
    return pytestconfig.stash.setdefault(_FIGURES, Figures())


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    figures = config.stash.get(_FIGURES, None)
    if figures is None or not figures.rows:
        return
    versions = [part for side in SIDES.values() for part in side.harness.backend.versions().items()]
    terminalreporter.section("PyTorch and MindSpore: absolute differences, the shapes checkpoint")
    terminalreporter.line(
        ", ".join(f"{name} {version}" for name, version in dict(versions).items())
    )
    terminalreporter.line("pictures and previews in levels of 255")
    for line in figures.table():
        terminalreporter.line(line)
