"""Read what schedulers and guiders return: a tensor, a tuple of several, or an object with
names."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any


def part_of(out: Any, part: int | str | None) -> Any:
    """Return one part of an output, by its number or its name; the whole output if ``part`` is
    None."""
    if part is None:
        return out
    if isinstance(part, str) and not isinstance(out, Mapping):
        return getattr(out, part)
    return out[part]


def with_part(out: Any, part: int | str | None, value: Any) -> Any:
    """Return a copy of the output with another value for one part; ``out`` does not change."""
    if part is None:
        return value
    if isinstance(out, tuple):
        items = [value if i == part else item for i, item in enumerate(out)]
        return type(out)(*items) if hasattr(out, "_fields") else tuple(items)
    if isinstance(out, Mapping):
        name = part if isinstance(part, str) else [*out][part]
        return type(out)(**{**out, name: value})
    made = copy.copy(out)
    setattr(made, str(part), value)
    return made
