"""Make the backend object that unicb finds through its entry point."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from unicb.backend import Around, Backend, Ranks, T
from unicb.call_hooks import hook_call
from unicb.ops import Tensor, TensorOps


class MindSporeBackend(Backend):
    name = "mindspore"
    install = "pip install 'unicb[mindspore]'"
    package = "mindone"
    library = "mindone.diffusers"
    distributions = ("mindspore", "mindone", "transformers")

    @cached_property
    def ops(self) -> TensorOps:
        from unicb_mindspore.ops import MindSporeOps

        return MindSporeOps()

    @cached_property
    def tensor_type(self) -> type:
        import mindspore

        return cast(type, mindspore.Tensor)

    def in_dtype(self, x: Tensor, dtype: Any) -> Tensor:
        import mindspore

        return x.astype(mindspore.float32 if dtype == "float32" else dtype)

    def aside(self, work: Callable[..., T], tensors: Sequence[Tensor]) -> Callable[[], T]:
        from unicb_mindspore.aside import aside

        return aside(work, self.ops, tensors)

    def fork_rng(self) -> AbstractContextManager[None]:
        from unicb_mindspore.fork_rng import fork_rng

        return fork_rng()

    def hook(self, module: Any, around: Around) -> Callable[[], None]:
        # Not by mindone's registry of hooks: it replaces `construct`, which MindSpore compiles by
        # its name, and could not compile then.
        return hook_call(module, around)

    def is_built_in(self, part: Any, models: Sequence[Any]) -> bool:
        from unicb_mindspore.hooks import is_built_in

        return is_built_in(part, models)

    def devices(self) -> Sequence[str]:
        import mindspore

        target = str(mindspore.get_context("device_target"))
        if target == "CPU":
            return ("cpu",)
        count = mindspore.hal.device_count(target)
        return ("cpu", *(f"{target.lower()}:{number}" for number in range(count)))

    def reset_caches(self, module: Any, *, rehearse: bool = False) -> None:
        from unicb_mindspore.hooks import reset_caches

        reset_caches(module, rehearse)

    def rank(self) -> tuple[int, int]:
        from unicb_mindspore.ranks import rank

        return rank()

    def ranks(self, group: Any, models: Sequence[Any], timeout: float) -> Ranks | None:
        from unicb_mindspore.ranks import ranks_of

        return ranks_of(group)

    def agree(
        self, word: npt.NDArray[np.uint8], step: int, group: Any
    ) -> Callable[[float], Sequence[npt.NDArray[Any]]]:
        heard: Callable[[float], Sequence[npt.NDArray[Any]]] = group.agree(word, step)
        return heard
