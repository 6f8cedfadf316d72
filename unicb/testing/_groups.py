"""A pytest plug-in that tells each check's group.

It is loaded by name (``-p``), and so in every process in which pytest-xdist runs checks.
"""

from __future__ import annotations

import pytest

#: Name of the property of a report that has the group.
GROUP = "group"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let ``-k guidance`` choose a group, and reports tell theirs."""
    for item in items:
        if group := _group(item):
            item.extra_keyword_matches.add(group)
            item.user_properties.append((GROUP, group))


def name_of(group: type) -> str:
    """What a group is called in ``-k`` and in the summary: OpsChecks is "ops"."""
    return group.__name__.removesuffix("Checks").lower()


def _group(item: pytest.Item) -> str | None:
    """The group that a check belongs to, by the class that defines it."""
    kind = getattr(item, "cls", None)
    name = getattr(item, "originalname", item.name)
    for base in getattr(kind, "__mro__", ()):
        if name in vars(base):
            return name_of(base)
    return None
