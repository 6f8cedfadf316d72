"""Draw arrays to check operations on, and say how near the answers have to be."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

#: Distance between 1 and the next number, for the dtypes that a framework may have.
EPSILON = {"bfloat16": 2.0**-7, "float16": 2.0**-10, "float32": 2.0**-23, "float64": 2.0**-52}
SPECIAL = [0.0, -0.0, 0.99, 1.0, 254.99, 255.0, 255.5, 256.0, 300.0, -0.5, -1.0, -300.0]
NOT_FINITE = [math.nan, math.inf, -math.inf]

_sizes = st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple)
_values = st.one_of(
    st.sampled_from([float(np.float32(value)) for value in SPECIAL + NOT_FINITE]),
    # Frameworks may flush subnormal numbers to zero for the whole process.
    st.floats(-400, 400, width=32, allow_subnormal=False),
    st.floats(width=32, allow_subnormal=False),
)


def arrays(shape: Any = _sizes, values: Any = _values) -> st.SearchStrategy[npt.NDArray[Any]]:
    """Draw arrays of float32 that any dtype has to be right with."""
    return hnp.arrays(np.float32, shape, elements=values)


#: Drawn values may or may not include these; this does.
ALL_SPECIAL = np.array(SPECIAL + NOT_FINITE, dtype=np.float32)

#: So many examples for each check, and the same in each run.
moderate = settings(max_examples=50, deadline=None, derandomize=True, database=None)


def dtype_of(name: str) -> npt.DTypeLike:
    """Return the numpy dtype in which ``to_numpy`` hands over a framework's dtype of that name."""
    return np.float32 if name == "bfloat16" else np.dtype(name)
