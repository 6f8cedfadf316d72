"""The reference's tensor allows what the contract allows, and nothing else."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unicb.strict import StrictTensor


@pytest.fixture
def tensor() -> StrictTensor:
    return StrictTensor(np.arange(12, dtype=np.float32).reshape(3, 4))


@pytest.mark.parametrize(
    "key",
    [
        [0, 1],
        np.array([0]),
        True,
        np.int64(1),
        1.0,
        "a",
        (0, [1]),
        slice(np.int64(0), 2),
        (None, "a"),
    ],
)
def test_other_keys_are_refused(tensor: StrictTensor, key: Any) -> None:
    with pytest.raises(TypeError, match="indexed by integers, slices"):
        tensor[key]


def test_a_tensor_is_no_key(tensor: StrictTensor) -> None:
    with pytest.raises(TypeError, match="indexed by integers, slices"):
        tensor[StrictTensor(np.array([True, False, True]))]


@pytest.mark.parametrize("step", [-1, -2, 0])
def test_steps_are_positive(tensor: StrictTensor, step: int) -> None:
    with pytest.raises(ValueError, match="positive steps"):
        tensor[:, ::step]


@pytest.mark.parametrize("other", [True, np.float64(2), np.float32(2), 1j, "2", np.ones(4), None])
def test_other_operands_are_refused(tensor: StrictTensor, other: Any) -> None:
    for combine in ("__add__", "__sub__", "__mul__", "__truediv__", "__pow__"):
        with pytest.raises(TypeError, match="Python numbers"):
            getattr(tensor, combine)(other)


def test_exponents_are_numbers(tensor: StrictTensor) -> None:
    with pytest.raises(TypeError, match="Python numbers"):
        tensor**tensor  # type: ignore[operator]
    with pytest.raises(TypeError):
        2**tensor  # type: ignore[operator]


@pytest.mark.parametrize(
    "name", ["mean", "sum", "T", "ndim", "size", "copy", "astype", "to", "cpu", "flatten", "clip"]
)
def test_other_members_do_not_exist(tensor: StrictTensor, name: str) -> None:
    with pytest.raises(AttributeError):
        getattr(tensor, name)


def test_folder_to_copy_is_small() -> None:
    """A porter reads it at once: at most 200 lines of code, docstrings and comments aside."""
    lines = 0
    for path in (Path(__file__).parents[1] / "backends" / "unicb_numpy").glob("*.py"):
        source = path.read_text("utf-8")
        prose: set[int] = set()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                prose.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        for number, line in enumerate(source.splitlines(), 1):
            text = line.strip()
            lines += bool(text) and not text.startswith("#") and number not in prose
    assert 100 < lines <= 200
