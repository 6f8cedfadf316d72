"""The backend object that unicb finds through its entry point."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from importlib.metadata import version
from typing import Any

from unicb.backend import Around, has_base
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

    def is_tensor(self, value: object) -> bool:
        from unicb_numpy.ops import StrictTensor

        return isinstance(value, StrictTensor)

    def repeat(self, x: Tensor, n: int) -> Tensor:
        from unicb_numpy.ops import StrictTensor

        return StrictTensor([x.data] * n).reshape((n * x.shape[0], *x.shape[1:]))

    def hook(self, module: Any, around: Around) -> Callable[[], None]:
        from unicb_numpy.hooks import hook

        return hook(module, around)

    def versions(self) -> Mapping[str, str]:
        return {"numpy": version("numpy")}
