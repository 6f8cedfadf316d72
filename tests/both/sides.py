"""The two frameworks, side by side in one process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import diffusers
import mindone.diffusers
import mindspore
import torch

from unicb.testing import Harness
from unicb_mindspore import enable_cpu
from unicb_mindspore.harness import harness as mindspore_harness
from unicb_torch.harness import harness as torch_harness

enable_cpu()  # before any pipeline is built


@dataclass(frozen=True)
class Side:
    """One framework: its pipelines' package, its tensors' class, eyes on its denoisers."""

    name: str
    package: ModuleType
    tensor: type
    harness: Harness

    @contextmanager
    def rows(self, pipe: Any) -> Iterator[list[int]]:
        """Rows that the denoiser is really called with, one number a call."""
        rows: list[int] = []

        def around(call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            rows.append(int(args[0].shape[0]))
            return call(*args, **kwargs)

        undo = self.harness.spy(pipe, around)
        try:
            yield rows
        finally:
            undo()


SIDES = {
    "torch": Side("torch", diffusers, torch.Tensor, torch_harness),
    "mindspore": Side("mindspore", mindone.diffusers, mindspore.Tensor, mindspore_harness),
}
