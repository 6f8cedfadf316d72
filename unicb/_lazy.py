"""Import public names when they are first used (PEP 562): ``import unicb`` is quick.

Type checkers and editors see plain imports, under ``TYPE_CHECKING`` in the same file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from sys import modules
from typing import Any


def lazy(
    package: str, names: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make a package's ``__getattr__`` and ``__dir__`` that import its public names on first use.

    ``names`` maps each module to the names that it defines. Those modules that are the package's
    own become its attributes, too, as if they were imported.
    """
    source = {name: module for module, found in names.items() for name in found}
    own = {name: path for path in names for name in [path.removeprefix(f"{package}.")]}
    own = {name: path for name, path in own.items() if "." not in name}

    def __getattr__(name: str) -> Any:
        if name in source:
            value = getattr(import_module(source[name]), name)
        elif name in own:
            value = import_module(own[name])
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        setattr(modules[package], name, value)  # so that this is asked once
        return value

    def __dir__() -> list[str]:
        return sorted({*vars(modules[package]), *source, *own})

    return __getattr__, __dir__
