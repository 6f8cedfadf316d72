"""Report, as a pytest plug-in, each check's group, and the backend that is checked.

It is loaded by name (``-p``), and therefore in every process of pytest-xdist, too.
"""

from __future__ import annotations

import pytest

from unicb.testing.harness import Harness, kinds_of, missing_capabilities

#: Name of the property of a report that has the group.
GROUP = "group"
#: Name under which a process of pytest-xdist hands over the result of :func:`about`.
ABOUT = "unicb.testing about"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let ``-k guidance`` choose a group, and put the group into reports."""
    for item in items:
        if group := _group(item):
            item.extra_keyword_matches.add(group)
            item.user_properties.append((GROUP, group))
            if hasattr(config, "workeroutput"):
                config.workeroutput[ABOUT] = about(item.cls.harness)  # type: ignore[attr-defined]


def name_of(group: type) -> str:
    """Return a group's name in ``-k`` and in the summary: "ops" for OpsChecks."""
    return group.__name__.removesuffix("Checks").lower()


def about(harness: Harness) -> list[str]:
    """List the versions that a run of the suite uses, then what it leaves out, one line each."""
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
    """Return a check's group, from the class of the suite that defines the check; None for other
    tests, which may run in the same session."""
    name = getattr(item, "originalname", item.name)
    for base in getattr(getattr(item, "cls", None), "__mro__", ()):
        if name in vars(base) and base.__module__.startswith("unicb.testing."):
            return name_of(base)
    return None
