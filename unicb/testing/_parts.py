"""Parts: tensors are cut, and joined again, along their first axis."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from unicb.testing._base import Checks
from unicb.testing._drawn import ALL_SPECIAL, arrays, moderate


class PartsChecks(Checks):
    def test_chunk(self, dtype: str) -> None:
        """Exactly n equal parts along axis 0, in order, dtype kept."""
        ops = self.harness.backend.ops

        @moderate
        @given(arrays(), st.integers(1, 3))
        def check(array: npt.NDArray[Any], n: int) -> None:
            tensor = self.tensor(np.concatenate([array] * n), dtype)
            parts = ops.chunk(tensor, n)
            assert isinstance(parts, tuple)
            assert len(parts) == n
            whole = np.split(ops.to_numpy(tensor), n)
            for part, expected in zip(parts, whole, strict=True):
                assert part.dtype == tensor.dtype
                assert np.array_equal(ops.to_numpy(part), expected, equal_nan=True)

        check()

    @pytest.mark.parametrize(("rows", "n"), [(3, 2), (1, 2), (4, 3), (2, 0)])
    def test_chunk_refuses_unequal_parts(self, rows: int, n: int) -> None:
        """ValueError that names the shape when the parts would not be equal."""
        tensor = self.tensor(np.zeros((rows, 5), np.float32), "float32")
        with pytest.raises(ValueError, match=rf"\({rows}, 5\)"):
            self.harness.backend.ops.chunk(tensor, n)

    def test_concat(self, dtype: str) -> None:
        """Tensors one after another along axis 0, in the order given, dtype kept: one alone, empty
        ones, and one that is there several times."""
        ops = self.harness.backend.ops
        orders = st.lists(st.integers(0, 2), min_size=1, max_size=5)

        @moderate
        @given(arrays(), st.integers(0, 4), orders)
        @example(ALL_SPECIAL.reshape(3, 5), 1, [1, 0, 1])
        def check(array: npt.NDArray[Any], at: int, order: list[int]) -> None:
            whole = self.tensor(array, dtype)
            parts = [whole, whole[:at], whole[at:]]
            joined = ops.concat([parts[index] for index in order])
            assert joined.dtype == whole.dtype
            held = ops.to_numpy(whole)
            expected = np.concatenate([(held, held[:at], held[at:])[index] for index in order])
            assert tuple(joined.shape) == expected.shape
            assert np.array_equal(ops.to_numpy(joined), expected, equal_nan=True)

        check()

    @pytest.mark.parametrize(
        "shapes", [[(2, 5), (2, 4)], [(2, 5), (5,)], [(1, 3), (0,)], [(2, 1), (1, 3)], [()], []]
    )
    def test_concat_refuses_what_does_not_fit(self, shapes: list[tuple[int, ...]]) -> None:
        """ValueError that names the shapes when parts differ along another axis or in their number
        of axes, or have none; ValueError for no parts at all."""
        # Sliced, as not every framework makes a tensor of no elements.
        parts = [
            self.tensor(np.zeros([size + 1 for size in shape], np.float32), "float32")[
                tuple(slice(size) for size in shape)
            ]
            for shape in shapes
        ]
        said = self._refusal(parts)
        assert all(str(shape) in said for shape in shapes)

    def test_concat_refuses_another_dtype(self, dtype: str) -> None:
        """ValueError when the parts are of two dtypes, rather than the wider one for all."""
        x, others = np.zeros((1, 3), np.float32), {*self.harness.dtypes} - {dtype}
        for other in sorted(others):
            assert "(1, 3)" in self._refusal([self.tensor(x, dtype), self.tensor(x, other)])

    def _refusal(self, parts: list[Any]) -> str:
        """Return what concat says of parts that it must not join."""
        try:
            joined = self.harness.backend.ops.concat(parts)
        except ValueError as error:
            return str(error)
        raise AssertionError(f"concat made a tensor of shape {tuple(joined.shape)} of them")
