"""Read data files of many tables, of which a run needs few: a table is parsed on first use."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from unicb.given_classes import OWN

T = TypeVar("T")

_HEADER = re.compile(r"^\[([\w-]+)\]$", re.MULTILINE)


class Tables(Mapping[str, T]):
    """``Tables`` maps names to the tables of unicb's TOML files, each made when it is first used.

    To parse all of them would take most of the time of a process's first ``bind``. A file has
    comments, then tables, which are not nested; no line of a value may look like a header.

    Args:
        package: the package that contains the files, such as ``"unicb.pipelines"``.
        pattern: which files to read, such as ``"*.toml"``; they are read in the order of their
            names.
        make: called with a table's name and its entries; returns the mapping's value.
    """

    def __init__(
        self, package: str, pattern: str, make: Callable[[str, dict[str, Any]], T]
    ) -> None:
        # Frameworks import these two modules as well, so that here they usually cost nothing.
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
    """A fact table maps names of classes to facts about them; ported classes have the same names.

    A class that a user wrote may bring its own facts in its class attribute ``unicb_facts``: a
    ``row``, or None, which means that nothing is known.

    Args:
        package, pattern: as for :class:`Tables`.
        row: the class of the facts; a table's entries are its arguments, with lists as tuples.
    """

    def __init__(self, package: str, pattern: str, row: type[T]) -> None:
        super().__init__(package, pattern, self._make_row)
        self._row = row

    def _make_row(self, name: str, entry: dict[str, Any]) -> T:
        lists = {key: tuple(value) for key, value in entry.items() if isinstance(value, list)}
        return self._row(**entry | lists)

    def owner(self, kind: type, *, unless: str = "") -> type | None:
        """Return ``kind``, or its nearest base class, about which facts are known; None if there is
        none.

        Args:
            unless: name of an attribute; a class that defines it does not inherit its bases' facts.
        """
        for base in kind.__mro__:
            if OWN in vars(base):
                continue  # one of the classes that unicb gives an object during a run
            said = vars(base).get("unicb_facts", False)
            if said is None:
                return None
            if isinstance(said, self._row) or base.__name__ in self:
                return base
            if unless and unless in vars(base):
                return None
        return None

    def about(self, kind: type, *, unless: str = "") -> T | None:
        """Return the facts about :meth:`owner`; None if it returns None."""
        owner = self.owner(kind, unless=unless)
        if owner is None:
            return None
        said = vars(owner).get("unicb_facts")
        return said if isinstance(said, self._row) else self[owner.__name__]
