"""Data files of many tables, of which a run needs few: each is parsed when it is asked for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

T = TypeVar("T")

_HEADER = re.compile(r"^\[([\w-]+)\]$", re.MULTILINE)


class Tables(Mapping[str, T]):
    """The tables of unicb's TOML files by name, each made when it is first used.

    To parse all of them would be most of what the first ``bind`` of a process takes. A file has
    comments, and then tables: none inside another, and no line of a value that looks like a header.

    Args:
        package: where the files are.
        pattern: of their names; those that it matches are read in the order of their names.
        make: a table's value, from its name and its entries.
    """

    def __init__(
        self, package: str, pattern: str, make: Callable[[str, dict[str, Any]], T]
    ) -> None:
        # Frameworks import these, too: here, they cost nothing after the framework.
        from fnmatch import fnmatch
        from importlib.resources import files

        found = [file for file in files(package).iterdir() if fnmatch(file.name, pattern)]
        self._texts: dict[str, str] = {}
        for file in sorted(found, key=lambda file: file.name):
            _, *parts = _HEADER.split(file.read_text(encoding="utf-8"))
            self._texts |= zip(parts[::2], parts[1::2], strict=True)
        self._make = make
        self._made: dict[str, T] = {}

    def __getitem__(self, name: str) -> T:
        if name not in self._made:
            import tomllib

            self._made[name] = self._make(name, tomllib.loads(self._texts[name]))
        return self._made[name]

    def __contains__(self, name: object) -> bool:
        return name in self._texts

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    def __len__(self) -> int:
        return len(self._texts)
