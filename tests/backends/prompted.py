"""What a denoiser on a UNet is told at each step, for either framework."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from unicb.backend import backend_for
from unicb.testing import Harness

Array = npt.NDArray[Any]
STEPS = 6


def told(harness: Harness, run: Callable[..., Any], pipe: Any, *args: Any, **kw: Any) -> Any:
    """The embeddings, and the pooled ones where there are any, of each step; and the result."""
    seen: list[list[Array]] = []
    ops = backend_for(pipe).ops

    def around(call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        tensors = [kwargs["encoder_hidden_states"]]
        added = kwargs.get("added_cond_kwargs") or {}
        tensors += [added[name] for name in ("text_embeds",) if name in added]
        seen.append([ops.to_numpy(tensor) for tensor in tensors])
        return call(*args, **kwargs)

    undo = harness.spy(pipe, around)
    try:
        return seen, run(pipe, *args, **kw)
    finally:
        undo()


def check_switch(
    before: list[list[Array]], after: list[list[Array]], found: list[list[Array]], at: int
) -> None:
    """Up to step ``at`` as in one plain run, and from there as in another."""
    assert len(before) == len(after) == len(found) == STEPS
    assert not np.allclose(before[0][0], after[0][0])
    for step, tensors in enumerate(found):
        for tensor, expected in zip(tensors, (before if step < at else after)[step], strict=True):
            assert tensor.shape == expected.shape
            # A batch of another size is encoded with another rounding.
            np.testing.assert_allclose(tensor, expected, rtol=0, atol=1e-5)
