"""One verdict for each class, of all of its entries and cases."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

#: From the worst to the best, for all that is measured.
WORST_FIRST = (
    *("wrong", "failed", "not built", "refused", "no guidance", "otherwise", "exact", "right"),
)
#: Those that fail a run of coverage.
BAD = ("wrong", "failed")


def verdicts(rows: Iterable[dict[str, Any]]) -> dict[str, str]:
    """Return each class's verdict: the worst."""
    found: dict[str, str] = {}
    for row in rows:
        verdict, before = row["verdict"], found.get(row["class"])
        if verdict == "impossible":
            continue
        assert verdict in WORST_FIRST, f"{row['class']}: an unknown verdict, {verdict!r}"
        if before is None or WORST_FIRST.index(verdict) < WORST_FIRST.index(before):
            found[row["class"]] = verdict
    return found
