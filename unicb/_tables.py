"""Read data files of many tables, of which a run needs few: each is parsed when it is asked for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from unicb.given_classes import OWN

T = TypeVar("T")

_HEADER = re.compile(r"^\[([\w-]+)\]$", re.MULTILINE)


class Tables(Mapping[str, T]):
    """``Tables`` maps names to the tables of unicb's TOML files, each made when it is first used.

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


class FactTable(Tables[T]):
    """A fact table says what is known of classes, by their names: the frameworks call their ports
    the same.

    A class that a user wrote may say it itself: its class attribute ``unicb_facts`` is a ``row``,
    or None, with which it is as good as unknown.

    Args:
        package, pattern: as for :class:`Tables`.
        row: the type of the facts; the entries of a table are its arguments, lists as tuples.
    """

    def __init__(self, package: str, pattern: str, row: type[T]) -> None:
        super().__init__(package, pattern, self._make_row)
        self._row = row

    def _make_row(self, name: str, entry: dict[str, Any]) -> T:
        lists = {key: tuple(value) for key, value in entry.items() if isinstance(value, list)}
        return self._row(**entry | lists)

    def owner(self, kind: type, *, unless: str = "") -> type | None:
        """Return ``kind`` or the nearest of its bases of which facts are known; None if there is
        none.

        Args:
            unless: an attribute; facts about the bases of a class that defines it do not count.
        """
        for base in kind.__mro__:
            if OWN in vars(base):
                continue  # a class of ours that an object has for a while defines what it likes
            said = vars(base).get("unicb_facts", False)
            if said is None:
                return None
            if isinstance(said, self._row) or base.__name__ in self:
                return base
            if unless and unless in vars(base):
                return None
        return None

    def about(self, kind: type, *, unless: str = "") -> T | None:
        """Return the facts about :meth:`owner`; None if there is none."""
        owner = self.owner(kind, unless=unless)
        if owner is None:
            return None
        said = vars(owner).get("unicb_facts")
        return said if isinstance(said, self._row) else self[owner.__name__]
