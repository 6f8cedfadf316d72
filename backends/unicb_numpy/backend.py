"""The backend object that unicb finds through its entry point."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property, partial
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
        hooks = module.forward
        if not isinstance(hooks, Hooks):
            hooks = module.forward = Hooks(hooks)
        hooks.arounds.append(around)

        def remove() -> None:
            hooks.arounds.remove(around)
            if not hooks.arounds:
                del module.forward

        return remove

    def versions(self) -> Mapping[str, str]:
        return {"numpy": version("numpy")}


class Hooks:
    """Stands before a module's ``forward`` while there are hooks on it."""

    def __init__(self, forward: Callable[..., Any]) -> None:
        self.forward = forward
        self.arounds: list[Around] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        call = self.forward
        for around in self.arounds:
            call = partial(_call, around, call)
        return call(*args, **kwargs)


def _call(around: Around, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return around(call, args, kwargs)
