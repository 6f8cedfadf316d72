"""Writes which loops the facts were proven on: the fingerprints of the installed release's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from unicb.pipelines import facts_owner, known_pipelines
from unicb.pipelines.fingerprint import fingerprints
from unicb.pipelines.source import CallSource
from zoo.families import entries, family_names
from zoo.framework import Framework

LOOPS = Path(__file__).parents[2] / "unicb" / "pipelines" / "loops.json"


def classes(fx: Framework) -> Iterator[type]:
    """Those of the library's classes that there are facts about."""
    for name in known_pipelines():
        try:
            found = getattr(fx.library, name)
        except (AttributeError, ImportError, RuntimeError):
            found = None
        # Where a class needs what is not installed, another stands for it.
        if not isinstance(found, type) or ".dummy_" in found.__module__:
            found = _built(fx, name)
        if found is not None:
            yield found


def _built(fx: Framework, name: str) -> type | None:
    """The class of the zoo's pipeline, which knows how to import it; None where there is none."""
    every = (entry for family in family_names() for entry in entries(family))
    for entry in every:
        if entry.name == name and fx.name in entry.frameworks and not entry.not_built:
            return type(entry.build(fx))
    return None


def loops_of(fx: Framework) -> dict[str, list[str]]:
    """The fingerprints of the library's loops, by the name that their facts have."""
    found: dict[str, list[str]] = {}
    for kind in classes(fx):
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
    found = loops_of(fx)
    for name, hashes in found.items():
        known.setdefault(name, {})[release] = hashes
    kept = {name: dict(sorted(known[name].items())) for name in sorted(known) if known[name]}
    lines = [f"  {json.dumps(name)}: {json.dumps(loops)}" for name, loops in kept.items()]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    return f"{release}: {len(found)} loops, in {path}"
