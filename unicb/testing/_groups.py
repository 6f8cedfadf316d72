"""Tell, as a pytest plug-in, each check's group, and what the checks are made on.

It is loaded by name (``-p``), and so in every process in which pytest-xdist runs checks.
"""

from __future__ import annotations

import pytest

from unicb.testing.harness import Harness, kinds_of, missing_capabilities

#: Name of the property of a report that has the group.
GROUP = "group"
#: Name by which a process that runs checks for another hands over :func:`about`.
ABOUT = "unicb.testing about"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let ``-k guidance`` choose a group, and reports tell theirs."""
    for item in items:
        if group := _group(item):
            item.extra_keyword_matches.add(group)
            item.user_properties.append((GROUP, group))
            if hasattr(config, "workeroutput"):
                config.workeroutput[ABOUT] = about(item.cls.harness)  # type: ignore[attr-defined]


def name_of(group: type) -> str:
    """Return what a group is called in ``-k`` and in the summary: OpsChecks is "ops"."""
    return group.__name__.removesuffix("Checks").lower()


def about(harness: Harness) -> list[str]:
    """List what a run of the suite stands on, and then what it leaves out, a line each."""
    versions = [f"{name} {version}" for name, version in harness.backend.versions().items()]
    lines = [
        f"unicb conformance suite, backend {harness.backend.name}: {', '.join(versions)}; "
        f"device: {harness.device}"
    ]
    if missing := ", ".join(missing_capabilities(harness)):
        lines.append(f"not covered, for the harness lists no such kind or dtype: {missing}")
    some, all_kinds = kinds_of(harness, sampled=True), harness.kinds
    if some != all_kinds:
        number = f"{len(some)} of {len(all_kinds)} kinds"
        lines.append(
            f"state and end of a run, and every batch of a cut, on {number}, all with "
            f"--every-kind: {', '.join(some)}"
        )
    return lines


def _group(item: pytest.Item) -> str | None:
    """Return the group that a check belongs to, by the class of the suite that defines it; None for
    other tests, which may run beside."""
    name = getattr(item, "originalname", item.name)
    for base in getattr(getattr(item, "cls", None), "__mro__", ()):
        if name in vars(base) and base.__module__.startswith("unicb.testing."):
            return name_of(base)
    return None
