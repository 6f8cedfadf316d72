"""Go through nested tuples, lists and mappings in models' arguments and outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any


def mapped(function: Callable[[Any], Any], value: Any, is_leaf: Callable[[Any], bool]) -> Any:
    """Return ``value`` with ``function`` applied to each leaf; containers keep their types."""
    if is_leaf(value):
        return function(value)
    if isinstance(value, Mapping):
        items = {key: mapped(function, item, is_leaf) for key, item in value.items()}
        return items if type(value) is dict else type(value)(**items)
    if isinstance(value, list | tuple):
        parts = [mapped(function, item, is_leaf) for item in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


def leaves(value: Any, is_leaf: Callable[[Any], bool]) -> Iterator[Any]:
    """Yield all leaves of ``value``, in order."""
    if is_leaf(value):
        yield value
    elif isinstance(value, Mapping):
        yield from leaves(list(value.values()), is_leaf)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from leaves(item, is_leaf)
