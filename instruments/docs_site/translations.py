"""Tells of each translated page whether it has what the English one says now.

A translation ``page.zh.md`` begins with a note of the English page that it was made from, and,
where that has changed since, of what is missing:

    <!-- translates: 0123456789ab -->
    <!-- missing: the section on Ctrl-C -->

The first is a hash of the English page; ``python instruments/docs_site/translations.py PAGE.zh.md``
writes it after a look at both, and takes the second away. The Python blocks of both are the same,
and so are the headings' levels, for each gets the English one's anchor in the site. Lists of checks
are made from docstrings on either page, and are not translated.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from docs_site.anchors import headings

_TRANSLATES = re.compile(r"^<!-- translates: ([0-9a-f]{12}) -->\n", re.MULTILINE)
_MISSING = re.compile(r"^<!-- missing: (.+) -->\n", re.MULTILINE)
_LIST = re.compile(r"(?<=^<!-- checks -->\n).*?(?=^<!-- /checks -->$)", re.MULTILINE | re.DOTALL)
_BLOCK = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


class Notes(NamedTuple):
    """Holds what a translation says of itself: the English page's hash, and what is missing."""

    translates: str
    missing: str


def notes(text: str) -> Notes:
    """Return the notes at the top of a translation; empty where there is none."""
    translates, missing = _TRANSLATES.search(text), _MISSING.search(text)
    return Notes(translates[1] if translates else "", missing[1] if missing else "")


def hash_of(text: str) -> str:
    """Return what a translation of this page notes."""
    return sha256(_LIST.sub("", text).encode("utf-8")).hexdigest()[:12]


def translations(root: Path) -> Iterator[tuple[Path, Path]]:
    """Yield each translation in the repository, with its English page."""
    for page in sorted([*root.glob("*.zh.md"), *(root / "docs").rglob("*.zh.md")]):
        yield page, page.with_name(page.name.removesuffix(".zh.md") + ".md")


def faults(page: Path, english: Path) -> list[str]:
    """Return what is wrong with a translation: nothing, or sentences that say what to do."""
    if not english.is_file():
        return [f"{page.name} translates {english.name}, which is not there"]
    text, original = page.read_text("utf-8"), english.read_text("utf-8")
    found, (translates, missing) = [], notes(text)
    current = translates == hash_of(original)
    if not current and not missing:
        found.append(
            f"{english.name} has changed since {page.name} was made from it: translate what is "
            f"new, and run python instruments/docs_site/translations.py {page.name}; or note what "
            "is missing: <!-- missing: ... -->"
        )
    if current and missing:
        found.append(
            f"{page.name} is of today's {english.name}, and notes that {missing} is missing"
        )
    if not missing and _code(text) != _code(original):
        found.append(f"the code of {page.name} is not that of {english.name}")
    if not missing and _levels(text) != _levels(original):
        found.append(f"the headings of {page.name} are not those of {english.name}")
    return found


def mark(page: Path, english: Path) -> None:
    """Note that the translation has all that the English page says now."""
    text = _MISSING.sub("", _TRANSLATES.sub("", page.read_text("utf-8")))
    note = f"<!-- translates: {hash_of(english.read_text('utf-8'))} -->\n"
    page.write_text(note + text, encoding="utf-8")


def _levels(text: str) -> list[str]:
    return [heading[1] for heading in headings(text)]


def _code(text: str) -> list[tuple[str, str]]:
    """Return the code of a page without its comments, which are translated, and what it prints."""
    blocks = (
        (language, body) for _, language, body in _BLOCK.findall(text) if language != "mermaid"
    )
    return [(language, re.sub(r"\s*#.*", "", body)) for language, body in blocks]


def main(names: list[str]) -> int:
    root = Path(__file__).resolve().parents[2]
    pairs = list(translations(root))
    for page, english in pairs:
        if page.name in {Path(name).name for name in names}:
            mark(page, english)
    wrong = [fault for page, english in pairs for fault in faults(page, english)]
    print(*(wrong or [f"{len(pairs)} translations have what the English pages say"]), sep="\n")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
