"""The backend object that unicb finds through its entry point."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from importlib.metadata import version
from typing import Any

from unicb.backend import Around, has_base
from unicb.ops import Tensor, TensorOps


class TorchBackend:
    name = "torch"
    install = "pip install 'unicb[torch]'"

    @cached_property
    def ops(self) -> TensorOps:
        from unicb_torch.ops import TorchOps

        return TorchOps()

    def owns(self, pipeline: object) -> bool:
        return has_base(pipeline, "diffusers", "DiffusionPipeline")

    def is_tensor(self, value: object) -> bool:
        import torch

        return isinstance(value, torch.Tensor)

    def concat(self, parts: Sequence[Tensor]) -> Tensor:
        import torch

        return torch.cat(list(parts))

    def hook(self, module: Any, around: Around) -> Callable[[], None]:
        from unicb_torch.hooks import hook

        return hook(module, around)

    def reset_caches(self, module: Any, *, rehearse: bool = False) -> None:
        from unicb_torch.hooks import reset_caches

        reset_caches(module, rehearse)

    def versions(self) -> Mapping[str, str]:
        return {name: version(name) for name in ("torch", "diffusers", "transformers")}
