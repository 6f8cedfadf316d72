"""The backend object that unicb finds through its entry point."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from importlib.metadata import version
from typing import Any, cast

from unicb.backend import Around, T, has_base
from unicb.ops import Tensor, TensorOps


class TorchBackend:
    name = "torch"
    install = "pip install 'unicb[torch]'"

    @cached_property
    def ops(self) -> TensorOps:
        from unicb_torch.ops import TorchOps

        return TorchOps()

    def owns(self, pipeline: object) -> bool:
        kinds = ("DiffusionPipeline", "ModelMixin")
        return any(has_base(pipeline, "diffusers", kind) for kind in kinds)

    @cached_property
    def _tensor(self) -> type:
        import torch

        return cast(type, torch.Tensor)

    def is_tensor(self, value: object) -> bool:
        return isinstance(value, self._tensor)

    def aside(self, work: Callable[..., T], tensors: Sequence[Tensor]) -> Callable[[], T]:
        from unicb_torch.aside import aside

        return aside(work, self.ops, tensors)

    def untouched(self) -> AbstractContextManager[None]:
        from unicb_torch.aside import untouched

        return untouched()

    def hook(self, module: Any, around: Around) -> Callable[[], None]:
        from unicb_torch.hooks import hook

        return hook(module, around)

    def reset_caches(self, module: Any, *, rehearse: bool = False) -> None:
        from unicb_torch.hooks import reset_caches

        reset_caches(module, rehearse)

    def versions(self) -> Mapping[str, str]:
        return {name: version(name) for name in ("torch", "diffusers", "transformers")}
