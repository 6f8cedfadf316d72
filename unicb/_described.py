"""Write arguments in one line, for the ``repr`` of the object that was made with them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

_LONGEST_TEXT, _MOST_ITEMS = 60, 6


def arguments(args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """Return arguments as they are written in a call: ``0.4, every=5``.

    A value that is no number, no string and no short collection of them is shown as the name of its
    type, so that no object is kept alive and no device is waited for.
    """
    return ", ".join([*map(short, args), *(f"{name}={short(x)}" for name, x in kwargs.items())])


def short(value: Any) -> str:
    """Return a value in one line."""
    if value is None or type(value) in (bool, int, float):
        return repr(value)
    if isinstance(value, str | os.PathLike):
        text = repr(os.fspath(value))
        return text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 4]}...{text[0]}"
    if type(value) in (list, tuple) and len(value) <= _MOST_ITEMS:
        items = ", ".join(map(short, value))
        if type(value) is list:
            return f"[{items}]"
        return f"({items},)" if len(value) == 1 else f"({items})"
    if type(value) is dict and len(value) <= _MOST_ITEMS:
        return "{" + ", ".join(f"{short(k)}: {short(v)}" for k, v in value.items()) + "}"
    if name := getattr(value, "__qualname__", None):  # a function, or a class
        return str(name).rpartition("<locals>.")[2]
    kind = type(value)
    plain: object = object.__repr__
    if kind.__module__.partition(".")[0] == "unicb" and kind.__repr__ is not plain:
        shown = repr(value)
        if "\n" not in shown and len(shown) <= 2 * _LONGEST_TEXT:
            return shown
    return f"<{kind.__name__}>"
