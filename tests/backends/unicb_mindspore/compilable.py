"""Has MindSpore compile mindone's UNet and VAE on a CPU.

It cannot otherwise: its compiler finds no CPU kernel for most of what mindone calls, reads less of
Python than unicb_mindspore.cpu is written in, and has a kernel for `Tensor.chunk` only where
nothing is compiled. What stands here instead is for tiny models: no masks, one kind of padding.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mindspore
import pytest
from mindone.diffusers.models.activations import GEGLU
from mindone.diffusers.models.attention_processor import Attention
from mindspore import Tensor, mint, ops
from mindspore.common import api


def _conv2d(self: Any, input: Tensor) -> Tensor:
    place = self.stride, "pad", self.padding, self.dilation, self.groups
    out = ops.conv2d(input, self.weight, None, *place)
    return out if self.bias is None else out + self.bias.reshape((1, -1, 1, 1))


def _layer_norm(self: Any, input: Tensor) -> Tensor:
    centred = input - input.mean(-1, keep_dims=True)
    out = centred * ops.rsqrt(ops.square(centred).mean(-1, keep_dims=True) + self.eps)
    return out * self.weight + self.bias


def _attend(
    self: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    scores = ops.matmul(query, key.swapaxes(-2, -1)) * self.scale
    return ops.matmul(ops.softmax(scores, -1), value)


def _geglu(self: Any, hidden_states: Tensor) -> Tensor:
    both = self.proj(hidden_states)
    half = both.shape[-1] // 2
    return both[..., :half] * ops.gelu(both[..., half:])


def _split(tensor: Tensor, split_size_or_sections: Any, dim: int = 0) -> Any:
    return ops.split(tensor, split_size_or_sections, dim)


def _arange(start: Any = 0, end: Any = None, step: Any = 1, *, dtype: Any = None) -> Tensor:
    return ops.arange(start, end, step, dtype=dtype)


def _pad(input: Tensor, pad: Any, mode: str = "constant", value: Any = 0) -> Tensor:
    return ops.pad(input, pad, mode, value)


@contextmanager
def compilable() -> Iterator[None]:
    """A block in which it can, and can do without being compiled, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mint.nn.Conv2d, "construct", _conv2d)
        patch.setattr(mint.nn.LayerNorm, "construct", _layer_norm)
        patch.setattr(Attention, "scaled_dot_product_attention", _attend)
        patch.setattr(GEGLU, "construct", _geglu)
        patch.setattr(mint.nn.functional, "pad", _pad)
        patch.setattr(mint, "split", _split)
        patch.setattr(mint, "arange", _arange)
        yield


@contextmanager
def compiled(how: str, *models: Any) -> Iterator[None]:
    """A block in which these models are: by "jit", as mindone's documentation does it, or in
    "graph" mode."""
    if how == "jit":
        for model in models:
            model.construct = mindspore.jit(model.construct)
    else:
        mindspore.set_context(mode=mindspore.GRAPH_MODE)
    try:
        yield
    finally:
        mindspore.set_context(mode=mindspore.PYNATIVE_MODE)
        for model in models:
            vars(model).pop("construct", None)


def graphs(*models: Any) -> int:
    """How many MindSpore has compiled: in all by jit, and of these models in graph mode."""
    return len(api.ms_compile_cache) + sum(len(model.compile_cache) for model in models)
