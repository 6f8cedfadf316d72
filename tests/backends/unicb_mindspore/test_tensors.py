"""unicb.tensors on MindSpore: half precision against numpy in float64."""

from __future__ import annotations

import mindspore
import numpy as np
import pytest

from unicb import tensors
from unicb.testing._tensors import ROUNDING
from unicb_mindspore import backend


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_latents_of_65536_numbers(dtype: str) -> None:
    a = mindspore.Tensor(np.random.default_rng(3).normal(size=(2, 16, 64, 64)), mindspore.float32)
    a = a.astype(getattr(mindspore, dtype))
    ops = backend.ops
    wide = ops.to_numpy(a).astype(np.float64).reshape(2, -1)
    norm, squares = np.sqrt((wide**2).sum(1)), (wide**2).mean(1)
    for found, expected, share_of in (
        (tensors.mean(ops, a), wide.mean(1), np.abs(wide).mean(1)),
        (tensors.std(ops, a), wide.std(1), wide.std(1)),
        (tensors.norm(ops, a), norm, norm),
        (tensors.dot(ops, a, a, average=True), squares, squares),
    ):
        assert found.dtype == a.dtype
        assert found.shape == (2, 1, 1, 1)
        error = np.abs(ops.to_numpy(found).astype(np.float64).reshape(-1) - expected)
        assert (error <= ROUNDING[dtype] * share_of).all()


def test_names_of_dtypes() -> None:
    one = mindspore.Tensor([1.0])
    for name in ("float16", "bfloat16", "float32", "float64", "int64"):
        assert tensors.dtype_name(one.astype(getattr(mindspore, name))) == name
