"""Make the backend object that unicb finds through its entry point."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from unicb.backend import Around, Backend, Ranks, T
from unicb.ops import Tensor, TensorOps


class TorchBackend(Backend):
    name = "torch"
    install = "pip install 'unicb[torch]'"
    package = "diffusers"
    distributions = ("torch", "diffusers", "transformers")

    @cached_property
    def ops(self) -> TensorOps:
        from unicb_torch.ops import TorchOps

        return TorchOps()

    @cached_property
    def tensor_type(self) -> type:
        import torch

        return cast(type, torch.Tensor)

    def in_dtype(self, x: Tensor, dtype: Any) -> Tensor:
        import torch

        return x.to(torch.float32 if dtype == "float32" else dtype)

    def aside(self, work: Callable[..., T], tensors: Sequence[Tensor]) -> Callable[[], T]:
        from unicb_torch.aside import aside

        return aside(work, self.ops, tensors)

    def fork_rng(self) -> AbstractContextManager[None]:
        from unicb_torch.aside import fork_rng

        return fork_rng()

    def hook(self, module: Any, around: Around) -> Callable[[], None]:
        from unicb_torch.hooks import hook

        return hook(module, around)

    def devices(self) -> Sequence[str]:
        from unicb_torch.accelerators import devices

        return devices()

    def reset_caches(self, module: Any, *, rehearse: bool = False) -> None:
        from unicb_torch.hooks import reset_caches

        reset_caches(module, rehearse)

    def rank(self) -> tuple[int, int]:
        from unicb_torch.ranks import rank

        return rank()

    def ranks(self, group: Any, models: Sequence[Any], timeout: float) -> Ranks | None:
        from unicb_torch.ranks import ranks_of

        return ranks_of(group, models, timeout)

    def agree(
        self, word: npt.NDArray[np.uint8], step: int, group: Any
    ) -> Callable[[float], Sequence[npt.NDArray[Any]]]:
        heard: Callable[[float], Sequence[npt.NDArray[Any]]] = group.agree(word, step)
        return heard

    def claim(self, name: str) -> int:
        from unicb_torch.ranks import claim

        return claim(name)
