"""Attend on a CPU: compute by products what mindone's function and MindSpore's flash kernel
compute."""

from __future__ import annotations

from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, ops

from unicb_mindspore._kernels_nn import dropout

# Finite, so that a row of a mask that blocks everything gives a mean and not NaN.
_BLOCKED = -1e30


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool | None = False,
    backend: str | None = "math",
) -> Tensor:
    """Stand in for the function of that name in mindone's `layers_compat`: exact, in float32.

    A boolean mask keeps what is True; any other mask is added to the scores. mindone itself rounds
    float32 input to half precision, and reads an additive mask as a boolean one; neither is copied.
    `backend` chooses nothing here.
    """
    if enable_gqa:
        key, value = (_shared_heads(part, query.shape[-3]) for part in (key, value))
    bias = None if attn_mask is None else _additive(attn_mask)
    if is_causal:
        causal = _additive(Tensor(np.tri(query.shape[-2], key.shape[-2], dtype=bool)))
        bias = causal if bias is None else bias + causal
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    return _attend(query, key, value, bias, scale, dropout_p)[0]


def attend_in_layer(
    self: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """Stand in for `scaled_dot_product_attention` of mindone's `Attention` layer.

    Off a device, mindone's own takes no mask where there are several heads, and ignores `scale`.
    """
    if attn_mask is not None and attn_mask.ndim == 3 and query.ndim == 4:
        rows = query.shape[0], -1, *attn_mask.shape[1:]
        attn_mask = attn_mask.reshape(rows)
    scale = self.scale if scale is None else scale
    return scaled_dot_product_attention(query, key, value, attn_mask, dropout_p, is_causal, scale)


def _shared_heads(part: Tensor, heads: int) -> Tensor:
    rows = np.repeat(np.arange(part.shape[-3]), heads // part.shape[-3])
    return ops.gather(part, Tensor(rows, ms.int32), part.ndim - 3)


def _additive(mask: Tensor) -> Tensor:
    if mask.dtype != ms.bool_:
        return mask.astype(ms.float32)
    return ops.zeros(mask.shape, ms.float32).masked_fill(mask.logical_not(), _BLOCKED)


def _attend(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float, dropout_p: float
) -> tuple[Tensor, Tensor]:
    """Return the attended values, in the type of `query`, and the scores behind them."""
    wide = [part.astype(ms.float32) for part in (query, key, value)]
    scores = _product(wide[0], wide[1], transposed=True) * scale
    if bias is not None:
        scores = scores + bias
    weights = dropout(ops.softmax(scores, -1), dropout_p)
    return _product(weights, wide[2]).astype(query.dtype), scores


_multiply, _multiply_by_transposed = ops.BatchMatMul(), ops.BatchMatMul(transpose_b=True)


def _product(a: Tensor, b: Tensor, transposed: bool = False) -> Tensor:
    """Multiply matrices; by `b` with its last two axes swapped, if `transposed`."""
    if a.ndim > 2 and a.shape[:-2] == b.shape[:-2]:
        return (_multiply_by_transposed if transposed else _multiply)(a, b)
    # It takes three times as long on small tensors, but it broadcasts.
    return ops.matmul(a, b.swapaxes(-2, -1) if transposed else b)


class FlashAttentionScore:
    """Stand in for the primitive `mindspore.ops.operations.nn_ops.FlashAttentionScore`.

    Understands what mindone asks of it: the layouts BSH, SBH, BSND and BNSD, and a mask whose True
    means "leave out". Anything else raises ValueError. The result is the primitive's tuple: maximum
    and sum of the softmax, an unused tensor, and the attention.
    """

    def __init__(
        self,
        head_num: int,
        keep_prob: float = 1.0,
        scale_value: float = 1.0,
        pre_tokens: int = 2147483647,
        next_tokens: int = 2147483647,
        inner_precise: int = 0,
        input_layout: str = "BSH",
        sparse_mode: int = 0,
    ) -> None:
        if input_layout not in ("BSH", "SBH", "BSND", "BNSD"):
            raise ValueError(f"no CPU attention for the layout {input_layout!r}")
        if sparse_mode or min(pre_tokens, next_tokens) < 65536:
            raise ValueError("no CPU attention for sparse_mode or for a window of tokens")
        self.head_num = head_num
        self.keep_prob = keep_prob
        self.scale_value = scale_value
        self.input_layout = input_layout

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        real_shift: Tensor | None = None,
        drop_mask: Tensor | None = None,
        padding_mask: Tensor | None = None,
        attn_mask: Tensor | None = None,
        *lengths: Any,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Attend from `query` to `key` and `value`."""
        extras = (real_shift, drop_mask, padding_mask, *lengths)
        if any(extra is not None for extra in extras):
            raise ValueError("no CPU attention for anything but an attention mask")
        bias = None if attn_mask is None else _additive(attn_mask.astype(ms.bool_).logical_not())
        heads = self._key_heads(query, key)
        shared = [_shared_heads(self._split(part, heads), self.head_num) for part in (key, value)]
        whole = self._split(query, self.head_num)
        out, scores = _attend(
            whole, shared[0], shared[1], bias, self.scale_value, 1 - self.keep_prob
        )
        top = scores.max(-1, keepdims=True)
        total = ops.exp(scores - top).sum(-1, keepdims=True)
        statistics = [ops.tile(part, (1, 1, 1, 8)) for part in (top, total)]
        return statistics[0], statistics[1], ops.zeros((), query.dtype), self._merge(out)

    def _key_heads(self, query: Tensor, key: Tensor) -> int:
        if self.input_layout in ("BSH", "SBH"):
            width = query.shape[-1] // self.head_num
            return int(key.shape[-1]) // int(width)
        return int(key.shape[1 if self.input_layout == "BNSD" else 2])

    def _split(self, part: Tensor, heads: int) -> Tensor:
        """Bring one input to batch, heads, sequence, width."""
        if self.input_layout == "BNSD":
            return part
        if self.input_layout == "SBH":
            part = part.swapaxes(0, 1)
        return part.reshape((part.shape[0], part.shape[1], heads, -1)).swapaxes(1, 2)

    def _merge(self, part: Tensor) -> Tensor:
        if self.input_layout == "BNSD":
            return part
        out = part.swapaxes(1, 2)
        if self.input_layout == "BSND":
            return out
        out = out.reshape((out.shape[0], out.shape[1], -1))
        return out.swapaxes(0, 1) if self.input_layout == "SBH" else out


def flash_attention_score(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    head_num: int,
    real_shift: Tensor | None = None,
    drop_mask: Tensor | None = None,
    padding_mask: Tensor | None = None,
    attn_mask: Tensor | None = None,
    prefix: Any = None,
    actual_seq_qlen: Any = None,
    actual_seq_kvlen: Any = None,
    keep_prob: float = 1.0,
    scalar_value: float = 1.0,
    pre_tokens: int = 2147483647,
    next_tokens: int = 2147483647,
    inner_precise: int = 0,
    input_layout: str = "BSH",
    sparse_mode: int = 0,
) -> Tensor:
    """Stand in for `ops.flash_attention_score`: the attention alone, by the primitive's rules."""
    attend = FlashAttentionScore(
        head_num,
        keep_prob,
        scalar_value,
        pre_tokens,
        next_tokens,
        inner_precise,
        input_layout,
        sparse_mode,
    )
    lengths = (prefix, actual_seq_qlen, actual_seq_kvlen)
    extras = (real_shift, drop_mask, padding_mask)
    return attend(query, key, value, *extras, attn_mask, *lengths)[3]
