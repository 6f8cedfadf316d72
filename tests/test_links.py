"""Links between the project's pages lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")]
CODE = re.compile(r"^( *)```.*?^\1```$|`[^`\n]*`", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)|^\[[^\]^]+\]: (\S+)$", re.MULTILINE)
REFERENCE = re.compile(r"\]\[([^\]]+)\]|(\[\^\d+\])(?!:)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
#: Where the site puts a name's docstring, with an anchor of that name.
DOCUMENTED = re.compile(r"^::: (\S+)$", re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """What links to headings of the page end in, as GitHub makes them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in HEADING.findall(text)
    }
    return {*headings, *DOCUMENTED.findall(text)}


def dead(page: Path) -> list[str]:
    """Links on the page that lead nowhere; those to the web are not followed."""
    text = CODE.sub("", page.read_text("utf-8"))
    found = []
    for link in (inline or defined for inline, defined in LINK.findall(text)):
        if re.match(r"\w+:", link):
            continue
        path, _, anchor = link.partition("#")
        to = page.parent / path if path else page
        if not to.exists() or (anchor and anchor not in anchors(to)):
            found.append(link)
    for name, note in REFERENCE.findall(text):
        if f"\n[{name}]: " not in text and f"\n{note}: " not in text:
            found.append(name or note)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    assert dead(page) == []


def test_dead_links_are_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A `b`, c\n[1](page.md) [2](#a-b-c) [3](page.md#a) [4](no.md) [5][six] [^7] [^8]\n"
        "`[9](no.md)` [10](https://example.org)\n\n[six]: no.txt\n[^8]: why\n",
        encoding="utf-8",
    )
    assert dead(page) == ["page.md#a", "no.md", "no.txt", "[^7]"]
