"""The backend object that unicb finds through its entry point."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from importlib.metadata import version
from typing import Any, cast

from unicb.backend import Around, T, has_base
from unicb.ops import Tensor, TensorOps


class MindSporeBackend:
    name = "mindspore"
    install = "pip install 'unicb[mindspore]'"

    @cached_property
    def ops(self) -> TensorOps:
        from unicb_mindspore.ops import MindSporeOps

        return MindSporeOps()

    def owns(self, pipeline: object) -> bool:
        kinds = ("DiffusionPipeline", "ModelMixin")
        return any(has_base(pipeline, "mindone", kind) for kind in kinds)

    @cached_property
    def _tensor(self) -> type:
        import mindspore

        return cast(type, mindspore.Tensor)

    def is_tensor(self, value: object) -> bool:
        return isinstance(value, self._tensor)

    def aside(self, work: Callable[..., T], tensors: Sequence[Tensor]) -> Callable[[], T]:
        from unicb_mindspore.aside import aside

        return aside(work, self.ops, tensors)

    def untouched(self) -> AbstractContextManager[None]:
        from unicb_mindspore.untouched import untouched

        return untouched()

    def hook(self, module: Any, around: Around) -> Callable[[], None]:
        from unicb_mindspore.hooks import hook

        return hook(module, around)

    def reset_caches(self, module: Any, *, rehearse: bool = False) -> None:
        from unicb_mindspore.hooks import reset_caches

        reset_caches(module, rehearse)

    def versions(self) -> Mapping[str, str]:
        return {name: version(name) for name in ("mindspore", "mindone", "transformers")}
