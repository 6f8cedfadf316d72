"""Draw pictures to fit colours on, if the user gives none: smooth fields of colour with shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

_Array = npt.NDArray[Any]


def drawings(count: int, edge: int, seed: int) -> _Array:
    """Draw pictures ``[count, 3, edge, edge]``, ``numpy.float32`` in -1..1; the same for the same
    seed."""
    rng = np.random.default_rng(seed)
    return np.stack([_drawing(rng, edge) for _ in range(count)]).astype(np.float32)


def _drawing(rng: np.random.Generator, edge: int) -> _Array:
    picture = rng.uniform(-1, 1, (3, 1, 1)) * np.ones((3, edge, edge))
    for grid in (2, 4):
        picture += rng.uniform(0, 0.4) * _smooth(rng.normal(size=(3, grid, grid)), edge)
    for _ in range(rng.integers(1, 7)):
        inside = _shape(rng, edge)
        picture = np.where(inside, rng.uniform(-1, 1, (3, 1, 1)), picture)
    return np.clip(picture, -1, 1)


def _smooth(noise: _Array, edge: int) -> _Array:
    """Stretch noise ``[3, grid, grid]`` to ``[3, edge, edge]``, linearly in each direction."""
    places = np.linspace(0, noise.shape[-1] - 1, edge)
    below = np.minimum(places.astype(int), noise.shape[-1] - 2)
    part = places - below
    rows = noise[:, below] * (1 - part)[:, None] + noise[:, below + 1] * part[:, None]
    columns: _Array = rows[..., below] * (1 - part) + rows[..., below + 1] * part
    return columns


def _shape(rng: np.random.Generator, edge: int) -> _Array:
    """Draw a mask ``[edge, edge]`` that is true in an ellipse or a rectangle, at any angle."""
    y, x = np.mgrid[:edge, :edge] / edge - rng.uniform(0.1, 0.9, (2, 1, 1))
    angle = rng.uniform(0, np.pi)
    along, across = (
        (x * np.cos(angle) + y * np.sin(angle)) / rng.uniform(0.08, 0.4),
        (y * np.cos(angle) - x * np.sin(angle)) / rng.uniform(0.08, 0.4),
    )
    if rng.random() < 0.5:
        return np.asarray(along**2 + across**2 < 1)
    return np.asarray(np.maximum(abs(along), abs(across)) < 1)
