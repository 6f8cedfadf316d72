"""Makes the README as a package index shows it: relative links lead nowhere there.

Where the address of the repository is known, links are absolute; without one, what would be a dead
link is its text, and pictures are left out.
"""

from __future__ import annotations

import re

_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!\w+:|#)([^)\s]+)\)")


def readme_for_index(text: str, repository: str) -> str:
    """Return the text of README.md with links that work anywhere.

    Args:
        text: of the README.
        repository: its address, such as ``https://host/owner/unicb``; empty: there is none.
    """

    def link(match: re.Match[str]) -> str:
        picture, said, path = match.groups()
        if not repository:
            return "" if picture else said
        return f"{picture}[{said}]({repository}/{'raw' if picture else 'blob'}/HEAD/{path})"

    code = re.split(r"(^```.*?^```$)", text, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if part.startswith("```") else _LINK.sub(link, part) for part in code)
