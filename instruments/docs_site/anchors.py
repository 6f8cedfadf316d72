"""Gives the headings of a translated page the anchors of the English ones, beside their own.

Every page of the other language that is not translated is the English one, and links to headings by
their English words; so do translations, to pages that may not be translated yet.
"""

from __future__ import annotations

import re

_CODE = re.compile(r"^( *)```.*?^\1```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^(#+) +(.+)$", re.MULTILINE)
_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")


def headings(text: str) -> list[re.Match[str]]:
    """Return the headings of a page, outside of its code, with their level and their words."""
    return [*_HEADING.finditer(_CODE.sub(lambda code: " " * len(code[0]), text))]


def anchors(text: str) -> list[str]:
    """Return the anchor of each heading of the page, as the site makes it."""
    made: list[str] = []
    for heading in headings(text):
        words = re.sub(r"[^\w\s-]", "", _LINK.sub(r"\1", heading[2])).strip().lower()
        anchor = first = re.sub(r"[-\s]+", "-", words)
        number = 0
        while anchor in made:
            number += 1
            anchor = f"{first}_{number}"
        made.append(anchor)
    return made


def with_anchors(text: str, english: str) -> str:
    """Return a translation whose headings have the anchors of the English page's, too.

    It is left as it is where it does not have as many headings. The title, to which nothing links,
    keeps its own.
    """
    own, theirs, found = anchors(text), anchors(english), headings(text)
    if len(own) != len(theirs):
        return text
    for heading, here, there in reversed([*zip(found, own, theirs, strict=True)]):
        if len(heading[1]) > 1 and there not in own and here != there:
            at = heading.start(2)
            text = f'{text[:at]}<a id="{there}"></a>{text[at:]}'
    return text
