"""Turns the roles of unicb's docstrings (``:class:`unicb.Preview```) into Markdown."""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:class|func|meth|attr|data|exc|mod|obj):`(~?)\.?([^`]+)`")
_EXAMPLE = re.compile(r"^( *)Example:$", re.MULTILINE)
_LITERAL = re.compile(r"``([^`]+)``")


def _short(match: re.Match[str]) -> str:
    tilde, name = match.groups()
    return f"`{name.rsplit('.', 1)[-1] if tilde else name}`"


class Roles(griffe.Extension):
    """Rewrites the docstrings of every object."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            text = _ROLE.sub(_short, obj.docstring.value)
            # As sessions, which they are, and not as text with links.
            text = _EXAMPLE.sub(r"\1Examples:", text)
            obj.docstring.value = _LITERAL.sub(r"`\1`", text)
