"""Helios pipelines of the zoo draw their block noise on any processor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import ways

NAME = "torch"
ENTRIES = [entry for entry in ways.all_entries(NAME).values() if entry.name.startswith("Helios")]
PYRAMIDS = [entry for entry in ENTRIES if entry.name == "HeliosPyramidPipeline"]


def _title(entry: Any) -> str:
    return entry.title


def _least(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[float, float]:
    """The least eigenvalue of the covariance that ``pipe`` factors, and what rounding may hide.

    A Cholesky factorisation in floating point succeeds if the least eigenvalue of a matrix with a
    unit diagonal is above ``n * g / (1 - g)``, g being ``(n + 1) * u / (1 - (n + 1) * u)``; below
    minus that it fails; in between, it depends on the order of the operations (Higham, Accuracy and
    Stability of Numerical Algorithms, theorem 10.7).
    """
    factored = []

    def factor(covariance: torch.Tensor) -> torch.Tensor:
        factored.append(covariance)
        return torch.eye(len(covariance))

    monkeypatch.setattr(torch.linalg, "cholesky", factor)
    pipe.sample_block_noise(
        1, 4, 1, 4, 4, patch_size=pipe.transformer.config.patch_size, generator=torch.Generator()
    )
    (covariance,) = factored
    assert covariance.dtype == torch.float32
    exact = covariance.numpy().astype(np.float64)
    assert np.allclose(np.diag(exact), 1, rtol=0, atol=1e-6)
    n, unit = len(exact), float(np.finfo(np.float32).eps) / 2
    gamma = (n + 1) * unit / (1 - (n + 1) * unit)
    return float(np.linalg.eigvalsh(exact)[0]), n * gamma / (1 - gamma)


def test_default_depends_on_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason for the zoo's own gamma; if this fails, the zoo may take the default again."""
    pipe = PYRAMIDS[0].build(ways.framework(NAME))
    pipe.scheduler = type(pipe.scheduler)()
    least, bound = _least(pipe, monkeypatch)
    assert abs(least) < bound


@pytest.mark.parametrize("entry", PYRAMIDS, ids=_title)
def test_zoo_is_definite(entry: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    least, bound = _least(entry.build(ways.framework(NAME)), monkeypatch)
    assert least > 1000 * bound


@pytest.mark.parametrize("entry", ENTRIES, ids=_title)
def test_every_variant_has_it(entry: Any) -> None:
    built = entry.build(ways.framework(NAME))
    default = type(built.scheduler)()
    assert 0 < built.scheduler.config.gamma < default.config.gamma
