"""Sheets of labelled lines: as text, and as HTML for a notebook."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Iterable

_WIDTH = 100
_INDENT = "  "

#: A label, and its text.
Line = tuple[str, str]


def as_text(title: str, lines: Iterable[Line]) -> str:
    """Return the title with the lines below it, the labels in a column of their own."""
    shown = list(lines)
    column = max((len(label) for label, _ in shown), default=0) + 2
    made = [title]
    for label, text in shown:
        first = f"{_INDENT}{label:<{column}}"
        made += textwrap.wrap(
            text,
            _WIDTH,
            initial_indent=first,
            subsequent_indent=" " * len(first),
            break_long_words=False,
            break_on_hyphens=False,
        ) or [first.rstrip()]
    return "\n".join(made)


def as_html(title: str, lines: Iterable[Line]) -> str:
    """Return the title and lines as an HTML table, in the notebook's own colours."""
    cell = 'style="text-align: left; vertical-align: top; padding-right: 1em"'
    rows = "".join(
        f"<tr><th {cell}>{html.escape(label)}</th><td {cell}>{html.escape(text)}</td></tr>"
        for label, text in lines
    )
    return f"<table><caption {cell}>{html.escape(title)}</caption><tbody>{rows}</tbody></table>"
