"""unicb.tensors: half precision against numpy in float64."""

from __future__ import annotations

import numpy as np
import pytest
from here import backend, harness, on

from unicb import tensors
from unicb.testing._tensors import ROUNDING

#: MindSpore's CPU cannot even subtract bfloat16.
DTYPES = on(torch=("float16", "bfloat16", "float32"), mindspore=("float16", "float32"))


@pytest.mark.parametrize("dtype", DTYPES)
def test_latents_of_65536_numbers(dtype: str) -> None:
    drawn = 1.1 * np.random.default_rng(3).normal(size=(2, 2, 16, 64, 64))
    a, b = (harness.tensor(x, dtype) for x in (drawn[0], (drawn[0] + drawn[1]) / 2))
    ops = backend.ops
    wide, other = (ops.to_numpy(x).astype(np.float64).reshape(2, -1) for x in (a, b))
    squares, norm = (wide**2).mean(1), np.sqrt((wide**2).sum(1))
    norms = norm * np.sqrt((other**2).sum(1))
    assert dtype != "float16" or ((wide**2).sum(1) > np.finfo(np.float16).max).all()
    for found, expected, share_of in (
        (tensors.mean(ops, a), wide.mean(1), np.abs(wide).mean(1)),
        (tensors.std(ops, a), wide.std(1), wide.std(1)),
        (tensors.norm(ops, a), norm, norm),
        (tensors.dot(ops, a, b), (wide * other).sum(1), norms),
        (tensors.dot(ops, a, a, average=True), squares, squares),
    ):
        assert found.dtype == a.dtype
        assert found.shape == (2, 1, 1, 1)
        error = np.abs(ops.to_numpy(found).astype(np.float64).reshape(-1) - expected)
        assert (error <= ROUNDING[dtype] * share_of).all()
    part = tensors.dot(ops, a, b, average=True) / tensors.dot(ops, b, b, average=True)
    projected = (wide * other).sum(1) / (other**2).sum(1)
    found = ops.to_numpy(part).astype(np.float64).reshape(-1)
    np.testing.assert_allclose(found, projected, rtol=4 * ROUNDING[dtype], atol=1e-8)


def test_names_of_dtypes() -> None:
    for name in ("float16", "bfloat16", "float32", "float64", "int64"):
        assert tensors.dtype_name(harness.tensor(np.ones(1), name)) == name
