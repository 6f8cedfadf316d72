"""The backend object that unicb finds through its entry point."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from importlib.metadata import version
from typing import Any

from unicb.backend import Around, has_base
from unicb.ops import Tensor, TensorOps


class MindSporeBackend:
    name = "mindspore"
    install = "pip install 'unicb[mindspore]'"

    @cached_property
    def ops(self) -> TensorOps:
        from unicb_mindspore.ops import MindSporeOps

        return MindSporeOps()

    def owns(self, pipeline: object) -> bool:
        return has_base(pipeline, "mindone", "DiffusionPipeline")

    def is_tensor(self, value: object) -> bool:
        import mindspore

        return isinstance(value, mindspore.Tensor)

    def concat(self, parts: Sequence[Tensor]) -> Tensor:
        from mindspore import ops

        return ops.cat(list(parts))

    def hook(self, module: Any, around: Around) -> Callable[[], None]:
        from unicb_mindspore.hooks import hook

        return hook(module, around)

    def reset_caches(self, module: Any, *, rehearse: bool = False) -> None:
        from unicb_mindspore.hooks import reset_caches

        reset_caches(module, rehearse)

    def versions(self) -> Mapping[str, str]:
        return {name: version(name) for name in ("mindspore", "mindone", "transformers")}
