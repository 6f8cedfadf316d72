"""Handle mindone's own registry of hooks, and compiled cells, for unicb's hooks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import mindspore
from mindone.diffusers.hooks import HookRegistry

from unicb.registry_hooks import refuse_faster_cache


def reset_caches(module: Any, rehearse: bool) -> None:
    """See :meth:`unicb.Backend.reset_caches`."""
    registry = getattr(module, "_diffusers_hook", None) or HookRegistry(module)
    refuse_faster_cache(module, registry)
    if not rehearse:
        registry.reset_stateful_hooks()


def is_built_in(part: Any, models: Sequence[Any]) -> bool:
    """See :meth:`unicb.Backend.is_built_in`."""
    return any(part is one for model in models for one in _built_in(model))


def _built_in(model: Any) -> Iterator[Any]:
    """Yield what is inside a model's compiled cells: cells, and the objects in their attributes."""
    for whole in _compiled(model):
        for _, cell in whole.cells_and_names():
            if cell is not whole:
                yield cell
            yield from vars(cell).values()


def _compiled(model: Any) -> Iterator[Any]:
    if not isinstance(model, mindspore.nn.Cell):
        return
    if mindspore.get_context("mode") == mindspore.GRAPH_MODE:
        yield model
        return
    for _, cell in model.cells_and_names():
        if hasattr(cell.construct, "__wrapped_by_jit__"):  # as MindSpore itself asks
            yield cell
