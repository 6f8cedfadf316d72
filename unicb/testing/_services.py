"""Services: the backend changes dtypes, has work done aside, and puts random numbers back."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from unicb.tensors import dtype_name
from unicb.testing._base import Checks


class ServicesChecks(Checks):
    def test_in_dtype(self, dtype: str) -> None:
        """A tensor in another floating dtype has its numbers, rounded to that; and back again the
        same bits, where the other is no narrower."""
        backend = self.harness.backend
        x = self.tensor(np.array([[0.1, -3.0, 250.7], [1e-3, 0.0, 7.3]]), dtype)
        host = backend.ops.to_numpy(x)
        wide = backend.in_dtype(x, "float32")
        assert dtype_name(wide) == "float32"
        np.testing.assert_array_equal(backend.ops.to_numpy(wide), host.astype(np.float32))
        back = backend.in_dtype(wide, x.dtype)
        assert dtype_name(back) == dtype_name(x)
        assert dtype_name(x) == dtype
        expected = host.astype(np.float32).astype(host.dtype)
        np.testing.assert_array_equal(backend.ops.to_numpy(back), expected)
        np.testing.assert_array_equal(backend.ops.to_numpy(x), host)

    def test_aside(self) -> None:
        """``backend.aside(work, tensors)`` gives, in any thread, what ``work`` makes of operations
        and of the tensors in their order; what ``work`` raises comes out, and the tensors are left
        alone."""
        backend = self.harness.backend
        array = np.arange(6, dtype=np.float32).reshape(2, 3)
        x, y = (self.tensor(numbers, "float32") for numbers in (array, array[:1]))

        def work(ops: Any, *tensors: Any) -> list[npt.NDArray[Any]]:
            return [ops.to_numpy(tensor * 2) for tensor in tensors]

        result = backend.aside(work, [x, y, x])
        with ThreadPoolExecutor(1) as pool:
            made = pool.submit(result).result()
        for numbers, expected in zip(made, (array, array[:1], array), strict=True):
            assert np.array_equal(numbers, expected * 2)
        assert np.array_equal(backend.ops.to_numpy(x), array)

        def fail(ops: Any, tensor: Any) -> None:
            raise LookupError("as planned")

        with pytest.raises(LookupError, match="as planned"):
            backend.aside(fail, [x])()

    def test_fork_rng(self) -> None:
        """Random numbers of the framework that are drawn within ``backend.fork_rng()`` are drawn
        again after it, and errors go through."""
        backend, drawn = self.harness.backend, []
        for _ in range(2):
            with backend.fork_rng():
                drawn.append(self.harness.draw())
        with pytest.raises(LookupError, match="drawn"), backend.fork_rng():
            raise LookupError("drawn", self.harness.draw())
        drawn.append(self.harness.draw())
        assert all(np.array_equal(numbers, drawn[0]) for numbers in drawn)
