"""Stand-ins for text models, whose embeddings are random numbers that follow from the words."""

from __future__ import annotations

from typing import Any

import numpy as np

from zoo.framework import Framework

TOKENS = 5
TEXT = 8


class Part:
    """Stand for a model or a processor that is asked for a few things only."""

    def __init__(self, **has: Any) -> None:
        vars(self).update(has)


class Tokenizer:
    """Stand for a tokenizer: the tokens of a text are its length; there are fewer than fit."""

    model_max_length = TOKENS

    def __init__(self, fx: Framework) -> None:
        self._fx = fx

    def __call__(
        self, texts: str | list[str], padding: str = "", return_tensors: str = "", **_: Any
    ) -> Any:
        listed = [texts] if isinstance(texts, str) else texts
        tokens = TOKENS - 1 if padding == "longest" else TOKENS
        ids = np.array([[len(text)] * tokens for text in listed], np.int64)
        on_host = return_tensors == "np"
        return Part(input_ids=ids if on_host else self._fx.tensor(ids, "int64"))


class Encoder:
    """Stand for a text encoder: one embedding for each token. ``scale`` is large, so that weights
    as small as the zoo's let guidance show."""

    def __init__(self, fx: Framework, width: int = TEXT, scale: float = 20.0) -> None:
        self._fx, self._width, self._scale = fx, width, scale
        self.config = Part(
            hidden_size=width, max_position_embeddings=TOKENS, use_attention_mask=False
        )
        self.dtype = fx.tensor(np.zeros(1)).dtype

    def __call__(self, ids: Any, **_: Any) -> Any:
        return (self._fx.tensor(np.stack([self._of(row) for row in self._host(ids)])),)

    def _host(self, ids: Any) -> Any:
        return ids if isinstance(ids, np.ndarray) else self._fx.backend.ops.to_numpy(ids)

    def _of(self, row: Any) -> Any:
        shape = len(row), self._width
        return self._scale * np.random.default_rng(int(row[0])).normal(size=shape)
