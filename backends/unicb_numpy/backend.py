"""Make the backend object that unicb finds through its entry point."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np

from unicb.backend import Backend
from unicb.ops import Tensor, TensorOps


class NumpyBackend(Backend):
    name = "numpy"
    install = "pip install unicb"
    package = "unicb_numpy"
    library = "unicb_numpy.pipelines"
    bases = ("ToyPipeline", "ToyUNet")
    distributions = ("numpy",)

    @cached_property
    def ops(self) -> TensorOps:
        from unicb_numpy.ops import NumpyOps

        return NumpyOps()

    @cached_property
    def tensor_type(self) -> type:
        from unicb_numpy.ops import StrictTensor

        return StrictTensor

    def in_dtype(self, x: Tensor, dtype: Any) -> Tensor:
        return type(x)(x.data.astype(dtype))

    @contextmanager
    def fork_rng(self) -> Iterator[None]:
        state = np.random.get_state()
        try:
            yield
        finally:
            np.random.set_state(state)
