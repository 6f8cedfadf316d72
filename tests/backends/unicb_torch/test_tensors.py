"""unicb.tensors on torch: half precision against torch's own functions in float64."""

from __future__ import annotations

import pytest
import torch

from unicb import tensors
from unicb.testing._tensors import ROUNDING
from unicb_torch import backend

SHAPE = (2, 16, 64, 64)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_latents_of_65536_numbers(dtype: str) -> None:
    generator = torch.Generator().manual_seed(3)
    drawn = [1.1 * torch.randn(SHAPE, generator=generator) for _ in range(2)]
    a, b = (x.to(getattr(torch, dtype)) for x in (drawn[0], (drawn[0] + drawn[1]) / 2))
    wide, other = a.double().flatten(1), b.double().flatten(1)
    norms = wide.norm(dim=1) * other.norm(dim=1)
    ops = backend.ops
    assert dtype != "float16" or not torch.isfinite((a.flatten(1) * a.flatten(1)).sum(1)).all()
    for found, expected, share_of in (
        (tensors.mean(ops, a), wide.mean(1), wide.abs().mean(1)),
        (tensors.std(ops, a), wide.std(1, correction=0), wide.std(1)),
        (tensors.norm(ops, a), wide.norm(dim=1), wide.norm(dim=1)),
        (tensors.dot(ops, a, b), (wide * other).sum(1), norms),
        (tensors.dot(ops, a, a, average=True), (wide**2).mean(1), (wide**2).mean(1)),
    ):
        assert found.dtype == a.dtype
        assert found.shape == (2, 1, 1, 1)
        error = (found.double().flatten() - expected).abs()
        assert (error <= ROUNDING[dtype] * share_of).all()
    part = tensors.dot(ops, a, b, average=True) / tensors.dot(ops, b, b, average=True)
    projected = (wide * other).sum(1) / (other**2).sum(1)
    assert torch.allclose(part.double().flatten(), projected, rtol=4 * ROUNDING[dtype])


def test_names_of_dtypes() -> None:
    for name in ("float16", "bfloat16", "float32", "float64", "int64"):
        assert tensors.dtype_name(torch.ones(1, dtype=getattr(torch, name))) == name
