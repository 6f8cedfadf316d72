"""What unicb itself costs is measured, here in small: see tests/backends/costs.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from costs import (
    BENCHMARKS,
    check_bind_cost,
    check_circumstances_are_what_they_say,
    check_contestants_do_the_same,
    check_machinery_cost,
    check_passes_are_seen,
)


@pytest.fixture(autouse=True)
def modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the scripts importable."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def test_machinery_cost(tmp_path: Path) -> None:
    check_machinery_cost("torch", tmp_path)


def test_bind_cost(tmp_path: Path) -> None:
    import bind_cost

    check_bind_cost("torch", {*bind_cost.CLASSES["torch"]}, tmp_path)


def test_contestants_do_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    check_contestants_do_the_same("torch", monkeypatch)


def test_passes_are_seen() -> None:
    check_passes_are_seen()


def test_circumstances_are_what_they_say() -> None:
    check_circumstances_are_what_they_say()
