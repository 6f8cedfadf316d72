"""The backend object that unicb finds through its entry point."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from importlib.metadata import version
from typing import Any

import numpy as np

from unicb.backend import Around, T, at_once, has_base
from unicb.ops import Tensor, TensorOps


class NumpyBackend:
    name = "numpy"
    install = "pip install unicb"

    @cached_property
    def ops(self) -> TensorOps:
        from unicb_numpy.ops import NumpyOps

        return NumpyOps()

    def owns(self, pipeline: object) -> bool:
        return has_base(pipeline, "unicb_numpy", "ToyPipeline")

    @cached_property
    def _tensor(self) -> type:
        from unicb_numpy.ops import StrictTensor

        return StrictTensor

    def is_tensor(self, value: object) -> bool:
        return isinstance(value, self._tensor)

    def aside(self, work: Callable[..., T], tensors: Sequence[Tensor]) -> Callable[[], T]:
        return at_once(work, self.ops, tensors)

    @contextmanager
    def untouched(self) -> Iterator[None]:
        state = np.random.get_state()
        try:
            yield
        finally:
            np.random.set_state(state)

    def hook(self, module: Any, around: Around) -> Callable[[], None]:
        from unicb_numpy.hooks import hook

        return hook(module, around)

    def reset_caches(self, module: Any, *, rehearse: bool = False) -> None:
        """This framework has no hooks that cache."""

    def versions(self) -> Mapping[str, str]:
        return {"numpy": version("numpy")}
