"""Layouts: the framework's own packing is the truth for every class that packs."""

from __future__ import annotations

from typing import Any

import pytest
from here import backend, diffusers, on, tensor
from packing import (
    assert_colours_in_place,
    assert_size_as_unpacked,
    facts_named,
    missing_locals,
    packed_classes,
    packings,
    sized_classes,
    unpack_names,
)


def classes(names: list[str]) -> list[Any]:
    return [getattr(diffusers, name) for name in names if hasattr(diffusers, name)]


PACKED = classes(packed_classes())
OF_SIZE = classes(sized_classes())
#: This one packs in its __call__; tests/test_layouts.py has its packing written down.
BY_ITSELF = {"Ideogram4Pipeline"}
#: How many classes of each kind there are at the least.
LEAST = on(torch=40, mindspore=20)
UNPACKED = [k for k in OF_SIZE if facts_named(k.__name__).layout == "b(hw)(cpq)"]


@pytest.mark.parametrize("kind", [k for k in PACKED if k.__name__ not in BY_ITSELF])
def test_colours_are_where_the_class_packs_them(kind: Any) -> None:
    assert_colours_in_place(kind, kind.__name__, backend, tensor)


@pytest.mark.parametrize("kind", [k for k in UNPACKED if "vae_scale_factor" in unpack_names(k)])
def test_size_is_that_of_the_class_itself(kind: Any) -> None:
    assert_size_as_unpacked(kind, kind.__name__, backend, tensor)


@pytest.mark.parametrize("kind", OF_SIZE)
def test_loops_have_the_locals(kind: Any) -> None:
    assert not missing_locals(kind)


def test_classes_are_found() -> None:
    assert len(PACKED) >= LEAST
    assert len(OF_SIZE) >= LEAST
    assert sum(len(packings(kind)) for kind in PACKED) >= LEAST
