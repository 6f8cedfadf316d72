"""How a loop combines what its denoiser predicts, found by least squares."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unicb.guidance._observed import Combination, combination_of

Array = npt.NDArray[np.float64]
SHAPE = (2, 4, 16, 16)
FLOAT32, FLOAT16, BFLOAT16 = 2.0**-24, 2.0**-11, 2.0**-8


def predictions(shape: tuple[int, ...] = SHAPE, apart: float = 0.3) -> tuple[Array, Array, Array]:
    """An unconditional one, a conditional one that differs as much from it, and a sample."""
    random = np.random.default_rng(len(shape))
    unconditional = random.normal(size=shape)
    conditional = unconditional + apart * random.normal(size=shape)
    return unconditional, conditional, random.normal(size=shape)


def seen(
    parts: list[Array], output: Array, sample: Any = None, precision: float = FLOAT32
) -> Combination:
    found = combination_of(parts, output, sample, precision)
    assert found is not None
    return found


@given(scale=st.floats(1.1, 30.0), swapped=st.booleans(), sign=st.sampled_from([1.0, -1.0]))
def test_scale_order_and_sign(scale: float, swapped: bool, sign: float) -> None:
    u, c, _ = predictions()
    parts = [c, u] if swapped else [u, c]
    found = seen(parts, sign * (u + scale * (c - u)))
    assert found.conditional == (0 if swapped else 1)
    assert found.scale == pytest.approx(scale, rel=1e-6)
    assert found.total == pytest.approx(sign, rel=1e-6)
    assert not found.varies


def test_from_the_conditional_one() -> None:
    u, c, _ = predictions()
    assert seen([u, c], c + 3 * (c - u)).scale == pytest.approx(4)


def test_a_third_part() -> None:
    """Perturbed-attention guidance."""
    u, c, p = predictions()
    found = seen([u, c, p], u + 7.5 * (c - u) + 1.0 * (c - p))
    assert found.conditional == 1
    assert found.coefficients == pytest.approx((-6.5, 8.5, -1.0))


def rescaled(combined: Array, like: Array) -> Array:
    axes = tuple(range(1, combined.ndim))
    return combined * like.std(axes, keepdims=True) / combined.std(axes, keepdims=True)


def normed_by_cell(combined: Array, like: Array) -> Array:
    return (
        combined
        * np.linalg.norm(like, axis=1, keepdims=True)
        / np.linalg.norm(combined, axis=1, keepdims=True)
    )


@pytest.mark.parametrize(("change", "how"), [(rescaled, "rows"), (normed_by_cell, "cells")])
def test_scaled_afterwards(change: Callable[[Array, Array], Array], how: str) -> None:
    u, c, _ = predictions()
    found = seen([u, c], change(u + 5 * (c - u), c))
    assert (found.conditional, found.how, found.varies) == (1, how, True)
    assert found.scale == pytest.approx(5)


def test_converted_with_the_sample() -> None:
    u, c, x = predictions()
    found = seen([u, c], 0.3 * (u + 5 * (c - u)) - 0.8 * x, x)
    assert (found.conditional, found.how) == (1, "rows with the sample")
    assert found.scale == pytest.approx(5)


@pytest.mark.parametrize("axis", [1, 2])
def test_a_scale_for_each_frame(axis: int) -> None:
    u, c, _ = predictions((1, 5, 5, 8, 8))
    scales = np.linspace(1.5, 4, 5).reshape([5 if i == axis else 1 for i in range(5)])
    found = seen([u, c], u + scales * (c - u))
    assert found.how == f"frames on axis {axis}"
    assert found.conditional == 1
    assert found.scale == pytest.approx(2.75)
    assert found.varies


@pytest.mark.parametrize(
    ("dtype", "precision", "apart"),
    [(np.float32, FLOAT32, 1e-3), (np.float32, FLOAT32, 0.3), (np.float16, FLOAT16, 0.1)],
)
def test_rounding(dtype: Any, precision: float, apart: float) -> None:
    """The loop computes in its own dtype; parts that are alike say less of how it does."""
    u, c, _ = (x.astype(dtype) for x in predictions(apart=apart))
    output = u + dtype(7.5) * (c - u)
    found = seen([u.astype(float), c.astype(float)], output.astype(float), None, precision)
    assert found.conditional == 1
    assert abs(found.scale - 7.5) <= max(6 * found.error, 1e-6) * 7.5


NOT_CLEAN: dict[str, Callable[[Array, Array, Array], tuple[list[Array], Array]]] = {
    "another output": lambda u, c, x: ([u, c], x),
    "no guidance": lambda u, c, x: ([u, c], c),
    "a mean of both": lambda u, c, x: ([u, c], 0.5 * (u + c)),
    "not affine": lambda u, c, x: ([u, c], u + 5 * np.tanh(c - u)),
    "the same twice": lambda u, c, x: ([c, c], c),
    "the same to rounding": lambda u, c, x: ([c, c + 1e-8 * x], c + 5e-8 * x),
    "zeros": lambda u, c, x: ([u, c], 0 * u),
    "not finite": lambda u, c, x: ([u, c], np.where(x > 2, np.nan, c)),
    "a few elements": lambda u, c, x: ([u[:, :1, :1, :1], c[:, :1, :1, :1]], c[:, :1, :1, :1]),
}


@pytest.mark.parametrize("name", NOT_CLEAN)
def test_what_is_not_clean_is_not_believed(name: str) -> None:
    u, c, x = predictions()
    parts, output = NOT_CLEAN[name](u, c, x)
    assert combination_of(parts, output, None, FLOAT32) is None


def test_half_precision_tells_nothing_of_parts_that_are_alike() -> None:
    u, c, _ = predictions(apart=3e-4)
    assert combination_of([u, c], u + 7.5 * (c - u), None, BFLOAT16) is None
