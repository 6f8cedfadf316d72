"""Layouts: mindone's own packing is the truth for every class that packs."""

from __future__ import annotations

from typing import Any

import mindspore
import pytest
from mindone import diffusers
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

from unicb_mindspore import backend


def classes(names: list[str]) -> list[Any]:
    return [getattr(diffusers, name) for name in names if hasattr(diffusers, name)]


PACKED = classes(packed_classes())
OF_SIZE = classes(sized_classes())
#: This one packs in its __call__; tests/test_layouts.py has its packing written down.
BY_ITSELF = {"Ideogram4Pipeline"}
UNPACKED = [k for k in OF_SIZE if facts_named(k.__name__).layout == "b(hw)(cpq)"]


@pytest.mark.parametrize("kind", [k for k in PACKED if k.__name__ not in BY_ITSELF])
def test_colours_are_where_the_class_packs_them(kind: Any) -> None:
    assert_colours_in_place(kind, kind.__name__, backend, mindspore.Tensor)


@pytest.mark.parametrize("kind", [k for k in UNPACKED if "vae_scale_factor" in unpack_names(k)])
def test_size_is_that_of_the_class_itself(kind: Any) -> None:
    assert_size_as_unpacked(kind, kind.__name__, backend, mindspore.Tensor)


@pytest.mark.parametrize("kind", OF_SIZE)
def test_loops_have_the_locals(kind: Any) -> None:
    assert not missing_locals(kind)


def test_classes_are_found() -> None:
    assert len(PACKED) >= 20
    assert len(OF_SIZE) >= 20
    assert sum(len(packings(kind)) for kind in PACKED) >= 20
