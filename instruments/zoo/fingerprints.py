"""Write which loops the facts were proven on: the fingerprints of the installed release's.

Most loops of a release are those of another, to the letter, and known by it. The others are
measured, with every entry of their class, as if they were known: how guidance is cut, in every
case, and how it is scaled. Those that are exact are proven; no other gets into the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from unicb.pipelines import facts_for, facts_owner, known_pipelines
from unicb.pipelines.fingerprint import fingerprints
from unicb.pipelines.source import CallSource
from zoo.entry import Entry
from zoo.families import entries, family_names
from zoo.framework import Framework

LOOPS = Path(__file__).parents[2] / "unicb" / "pipelines" / "loops.json"
#: What may come of an entry whose class is proven.
GOOD = ("exact", "impossible", "no guidance", "refused")


@contextmanager
def taken_as(kind: type, *, proven: bool) -> Iterator[None]:
    """Count the facts about the class, in the block, as proven on its loop, or on another."""
    found = CallSource.of(kind)._found
    before = dict(found)
    found.clear()
    try:
        with mock.patch("unicb.guidance._inference.is_proven", return_value=proven):
            yield
    finally:
        found.clear()
        found.update(before)


def release_of(fx: Framework) -> str:
    """Return the library and its version."""
    library = fx.library.__name__.partition(".")[0]
    return f"{library} {fx.backend.versions()[library]}"


def entries_of(fx: Framework, name: str) -> list[Entry]:
    """Return the zoo's entries of a class, on the framework."""
    every = (entry for family in family_names() for entry in entries(family))
    return [e for e in every if e.name == name and fx.name in e.frameworks and not e.not_built]


def classes(fx: Framework) -> Iterator[type]:
    """Yield the library's classes that there are facts about."""
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
    """Return the class of the zoo's pipeline, which knows how to import it; None where there is
    none."""
    for entry in entries_of(fx, name):
        try:
            return type(entry.build(fx))
        except Exception as failure:  # mostly a class that this release does not have
            print(f"{name}: not built: {type(failure).__name__}: {str(failure)[:80]}", flush=True)
            return None
    return None


def _has_guidance(name: str) -> bool:
    """Return whether anything is done to the guidance of a class of this name."""
    facts = facts_for(type(name, (), {})())
    return facts is not None and facts.cfg != "none"


def why_not_proven(fx: Framework, kind: type) -> str:
    """Say why the facts do not hold for the loop of a class; empty where they do."""
    # What measures unproven loops imports this module.
    from zoo.coverage import CFG, GUIDANCE, outcomes

    verdicts = set[str]()
    for number, entry in enumerate(entries_of(fx, kind.__name__)):
        for subject in (CFG, GUIDANCE):
            with taken_as(kind, proven=True):
                for case, outcome in outcomes(entry, fx, subject, is_first=number == 0):
                    verdicts.add(outcome.verdict)
                    if outcome.verdict not in GOOD:
                        return f"{entry.title} / {case}: {outcome.verdict}: {outcome.why}"
    return "" if "exact" in verdicts else "none of the zoo's entries is exact"


def write(fx: Framework, path: Path = LOOPS) -> str:
    """Write those of the installed release into the data file; returns what was found, in words."""
    release = release_of(fx)
    known: dict[str, dict[str, list[str]]] = json.loads(path.read_text(encoding="utf-8"))
    found, measured, left_out = 0, 0, list[str]()
    for kind in classes(fx):
        owner = facts_owner(kind)
        if owner is None:
            continue
        hashes = list(fingerprints(CallSource.of(kind)))
        proven = known.setdefault(owner.__name__, {})
        is_known = any(one in hashes for loops in proven.values() for one in loops)
        proven.pop(release, None)
        if not is_known and _has_guidance(owner.__name__):
            measured += 1
            why = why_not_proven(fx, kind)
            print(f"{owner.__name__}: {why or 'measured, and proven'}", flush=True)
            if why:
                left_out.append(owner.__name__)
                continue
        proven[release] = hashes
        found += 1
    kept = {name: dict(sorted(known[name].items())) for name in sorted(known) if known[name]}
    lines = [f"  {json.dumps(name)}: {json.dumps(loops)}" for name, loops in kept.items()]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    rest = f"; not proven: {', '.join(left_out)}" if left_out else ""
    return f"{release}: {found} loops, {measured} of them measured, in {path}{rest}"
