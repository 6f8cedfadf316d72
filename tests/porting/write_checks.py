"""Write the suite's checks into docs/porting.md and its translations:
python tests/porting/write_checks.py"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from unicb.testing.suite import GROUPS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "porting.md"
PAGES = [PAGE, *PAGE.parent.glob("porting.*.md")]
BEGIN, END = "<!-- checks -->\n", "<!-- /checks -->\n"


def checks() -> Iterator[str]:
    """The list in Markdown: a heading for each group, a line for each of its checks."""
    for group in GROUPS:
        title = _one_line(sys.modules[group.__module__].__doc__)
        subject = title.partition(": ")[2] or title
        label = group.__name__.removesuffix("Checks").lower()
        yield f"\n**{label}**: {subject[0].lower()}{subject[1:]}\n\n"
        for check, function in vars(group).items():
            if check.startswith("test_"):
                promise = _one_line(function.__doc__)
                yield f"- `{check}`{_each(function)}: {promise}\n"
    yield "\n"


def _each(function: Callable[..., object]) -> str:
    """What a check is repeated for."""
    parameters = inspect.signature(function).parameters
    words = [word for word in ("kind", "dtype") if word in parameters]
    if hasattr(function, "on_sampled_kinds"):
        words[0] = "sampled kind"
    return f" (each {' and '.join(words)})" if words else ""


def _one_line(docstring: str | None) -> str:
    """A docstring in Markdown, without its line breaks."""
    return re.sub(r"\s+", " ", docstring or "").strip().replace("``", "`")


def written(page: str) -> str:
    """The page with the list brought up to date."""
    before, rest = page.split(BEGIN)
    return before + BEGIN + "".join(checks()) + END + rest.split(END)[1]


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(written(page.read_text(encoding="utf-8")), encoding="utf-8")
