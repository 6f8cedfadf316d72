"""diffusers' own callback objects, by themselves and through ``bind``: docs/migrating.md."""

from __future__ import annotations

import official_runs as runs
import pytest

NAME = "torch"


@pytest.mark.parametrize("row", list(runs.rows(NAME)), ids=lambda row: " ".join(row[:3]))
def test_table(row: runs.Row) -> None:
    runs.check(NAME, row)


def test_ip_adapter_scale() -> None:
    runs.check_ip_adapter_scale(NAME)


def test_several_at_once() -> None:
    runs.check_several(NAME)


def test_two_adapters() -> None:
    runs.check_two_adapters(NAME)
