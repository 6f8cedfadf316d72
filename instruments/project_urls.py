"""Puts the project's addresses into its metadata: those of the place that this clone comes from;
and the README, with links that work there.

hatchling asks for them when it builds (``tool.hatch.metadata.hooks`` in pyproject.toml). So they
are true of a fork, too, and no address has to be known here. What is built from an sdist has those
that the sdist was built with.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

try:
    from hatchling.metadata.plugin.interface import MetadataHookInterface
except ImportError:  # the check of what was built needs no hatchling
    MetadataHookInterface = object  # type: ignore[assignment, misc]

sys.path.insert(0, str(Path(__file__).parent))

from readme_for_index import readme_for_index

#: As in git@host:owner/name.git
_SCP = re.compile(r"(?:[^@/]+@)?([^:/]+):(?!//)(.+)")


def address_of(remote: str) -> str | None:
    """Return where people can look at what a git remote has; None where that is not for everybody:
    a folder, a host without a full name, an address of numbers. Never with a user or a password."""
    if scp := _SCP.fullmatch(remote):
        host, path = scp.groups()
    else:
        parts = urlsplit(remote)
        if parts.scheme not in ("https", "http", "ssh", "git"):
            return None
        host, path = parts.hostname or "", parts.path
    path = path.strip("/").removesuffix(".git")
    is_name = re.fullmatch(r"[\w-]+(\.[\w-]+)*\.[A-Za-z]{2,}", host) is not None
    return f"https://{host}/{path}" if is_name and path else None


def urls_of(root: Path) -> dict[str, str]:
    """Return the project's addresses; none where ``root`` is no clone, or comes from nowhere
    public."""
    asked = (
        ["git", "-C", str(root), "rev-parse", "--show-toplevel"],
        [
            *("git", "-C", str(root), "remote", "get-url", "origin"),
        ],
    )
    try:
        top, remote = (
            subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
            for command in asked
        )
    except (OSError, subprocess.CalledProcessError):
        return {}
    # An unpacked sdist may lie in somebody else's clone.
    address = address_of(remote) if Path(top).resolve() == root.resolve() else None
    return {"Source": address, "Issues": f"{address}/issues"} if address else {}


class ProjectURLs(MetadataHookInterface):
    """Answers hatchling, which asks it by ``update``."""

    def update(self, metadata: dict[str, Any]) -> None:
        root = Path(self.root)
        metadata["urls"] = urls_of(root)
        text = (root / "README.md").read_text("utf-8")
        shown = readme_for_index(text, metadata["urls"].get("Source", ""))
        metadata["readme"] = {"content-type": "text/markdown", "text": shown}
