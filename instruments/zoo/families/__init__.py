"""Builders, one module for each family of pipelines; each has a list called ENTRIES."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

from zoo.entry import Entry


def family_names() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def entries(family: str | None = None) -> Iterator[Entry]:
    for name in family_names() if family is None else [family]:
        yield from importlib.import_module(f"{__name__}.{name}").ENTRIES
