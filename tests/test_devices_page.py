"""Each row of the table of engines names a test that there is, or says that it was not run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs" / "devices.md").read_text("utf-8")
ROWS = [line for line in PAGE.partition("| engine |")[2].partition("\n\n")[0].splitlines()[2:]]
CASES = (TESTS / "ranks" / "torch_cases.py").read_text("utf-8")


ENGINES = (TESTS / "ranks" / "test_torch_ranks.py").read_text("utf-8")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip()[:40])
def test_row_is_proven_or_says_so(row: str) -> None:
    proof = row.strip().strip("|").split("|")[-1]
    names = re.findall(r"`([\w.:]+)`", proof)
    if not names:
        assert "not run" in proof or proof.strip() == "the same"
    for name in names:
        case, _, engine = name.partition(":")
        is_case = f"def {case}(" in CASES and f'"{engine}' in ENGINES
        assert is_case or any(TESTS.rglob(name)), name


def test_there_are_rows() -> None:
    assert len(ROWS) > 10
