"""Writes which loops the facts were proven on: the fingerprints of the installed release's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unicb.pipelines import facts_owner, known_pipelines
from unicb.pipelines.fingerprint import fingerprints
from unicb.pipelines.source import CallSource
from zoo.framework import Framework

LOOPS = Path(__file__).parents[2] / "unicb" / "pipelines" / "loops.json"


def classes(library: Any) -> Iterator[type]:
    """Those of the library's classes that there are facts about."""
    for name in known_pipelines():
        try:
            found = getattr(library, name)
        except (AttributeError, ImportError, RuntimeError):
            continue  # this release has none of that name
        # Where a class needs what is not installed, another stands for it.
        if isinstance(found, type) and ".dummy_" not in found.__module__:
            yield found


def loops_of(library: Any) -> dict[str, list[str]]:
    """The fingerprints of the library's loops, by the name that their facts have."""
    found: dict[str, list[str]] = {}
    for kind in classes(library):
        owner = facts_owner(kind)
        if owner is not None:
            found[owner.__name__] = list(fingerprints(CallSource.of(kind)))
    return found


def write(fx: Framework, path: Path = LOOPS) -> str:
    """Write those of the installed release into the data file; returns what was found, in words."""
    library, version = fx.library, fx.backend.versions()[fx.library.__name__.partition(".")[0]]
    release = f"{library.__name__.partition('.')[0]} {version}"
    known = json.loads(path.read_text(encoding="utf-8"))
    for loops in known.values():
        loops.pop(release, None)
    found = loops_of(library)
    for name, hashes in found.items():
        known.setdefault(name, {})[release] = hashes
    kept = {name: dict(sorted(known[name].items())) for name in sorted(known) if known[name]}
    lines = [f"  {json.dumps(name)}: {json.dumps(loops)}" for name, loops in kept.items()]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    return f"{release}: {len(found)} loops, in {path}"
