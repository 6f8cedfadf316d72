"""mindone's port of the callback objects, by themselves and through ``bind``: docs/migrating.md."""

from __future__ import annotations

import official_runs as runs
import pytest

NAME = "mindspore"


def rows() -> list[runs.Row]:
    """Those of the table, without several images of a prompt where the table has for them what it
    has for several prompts: the callbacks are the same code as diffusers', where all are run."""
    every = list(runs.rows(NAME))
    several = {row[:2]: row.verdict for row in every if row.case == "two prompts"}
    return [
        row
        for row in every
        if row.case != "two images per prompt" or row.verdict != several[row[:2]]
    ]


@pytest.mark.parametrize("row", rows(), ids=lambda row: " ".join(row[:3]))
def test_table(row: runs.Row) -> None:
    runs.check(NAME, row)


def test_ip_adapter_scale() -> None:
    runs.check_ip_adapter_scale(NAME)


def test_several_at_once() -> None:
    runs.check_several(NAME)


def test_two_adapters() -> None:
    runs.check_two_adapters(NAME)
