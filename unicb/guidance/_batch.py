"""Guidance in one call of the denoiser a step, on a batch of several blocks of rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from unicb.guidance._models import Models
from unicb.guidance._perturbed import PerturbedAttention
from unicb.ops import Tensor
from unicb.pipelines import Part


class BatchCut:
    """Leaves the unconditional rows out of the models' calls, and repeats the conditional rows of
    their output in the place of those that are missing.

    A tensor is taken to have rows if its first axis is exactly the blocks' number times the batch,
    or that times the number of frames, and its argument is not known to have none.
    """

    def __init__(self, models: Models, latents: Tensor) -> None:
        self._models = models
        self._perturbed = PerturbedAttention(models)
        self._batch = int(latents.shape[0])
        self._shape = tuple(latents.shape)
        self._axes = len(latents.shape)
        axis = models.facts.frames_axis
        self._frames = 1 if axis is None else int(latents.shape[axis])
        self._called = False
        self._first_step = True
        models.hook(self._answer)
        models.reset_caches()

    def step_end(self) -> None:
        if self._first_step and not self._called:
            denoisers = " or ".join(self._models.facts.denoisers)
            self._models.mismatch(f"its {denoisers} was not called in a step", "each step calls it")
        self._first_step = False

    def remove(self) -> None:
        self._models.reset_caches()
        self._models.remove()
        self._perturbed.remove()

    def _answer(
        self, name: str, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        sample = self._models.sample(args, kwargs)
        rows = len(sample) if isinstance(sample, list) else int(getattr(sample, "shape", [0])[0])
        # A sample with an axis less than the latents has their frames among its rows.
        folded = self._frames > 1 and 1 < len(getattr(sample, "shape", ())) < self._axes
        each = self._batch * (self._frames if folded else 1)
        denoises = name in self._models.facts.denoisers
        self._called = self._called or denoises
        order = self._order(rows, each)
        if order is None:
            if denoises and rows != each:
                self._models.mismatch(
                    f"it called its {name} with {rows} rows",
                    f"guidance should give {len(self._models.facts.order) * each}",
                )
            # Guidance is off, or the model gets the conditional rows alone, as a ControlNet in
            # guess mode does: nothing to cut.
            return call(*args, **kwargs)
        if self._first_step and denoises and self._models.facts.inferred:
            self._check_blocks(name, sample, rows // len(order))
        if "perturbed" in order and denoises:
            self._perturbed.without_unconditional()
        blocks = _Blocks(self._models, order, self._batch, self._frames)
        unbatched = self._models.facts.unbatched
        out = call(
            *(blocks.cut(value) for value in args),
            **{key: v if key in unbatched else blocks.cut(v) for key, v in kwargs.items()},
        )
        if denoises:
            self._check_rows(name, out, blocks.kept * each)
        return blocks.restore(out)

    def _order(self, rows: int, each: int) -> tuple[Part, ...] | None:
        """The blocks of a call with so many rows; None if it is not guided."""
        order = self._models.facts.order
        if rows == len(order) * each:
            return order
        plain = tuple(part for part in order if part != "perturbed")
        return plain if plain != order and rows == len(plain) * each else None

    def _check_blocks(self, name: str, sample: Any, each: int) -> None:
        """Blocks of rows denoise the same latents; rows in another order do not."""
        to_numpy = self._models.backend.ops.to_numpy
        part = (slice(None), *(slice(0, length) for length in self._shape[1:]))
        first, second = (to_numpy(sample[i * each : (i + 1) * each][part]) for i in (0, 1))
        if not np.array_equal(first, second, equal_nan=True):
            self._models.mismatch(
                f"the first {each} rows that its {name} is called with differ from the next {each}",
                "two blocks of rows should have the same latents",
            )

    def _check_rows(self, name: str, out: Any, rows: int) -> None:
        if self._models.facts.listed:
            return
        first = next((x for x in self._models.tensors(out) if len(x.shape)), None)
        if first is not None and first.shape[0] != rows:
            self._models.mismatch(
                f"its {name}, called with {rows} rows, answered with {int(first.shape[0])}",
                "it should answer with as many",
            )


class _Blocks:
    """Leaves blocks of rows out of a call's arguments, and puts them back into its output."""

    def __init__(self, models: Models, order: tuple[Part, ...], batch: int, frames: int) -> None:
        self._models = models
        self._order = order
        self._batch = batch
        self._frames = frames
        self._keep = [i for i, part in enumerate(order) if part != "unconditional"]
        self.kept = len(self._keep)

    def cut(self, value: Any) -> Any:
        return self._rows(value, len(self._order), self._kept_rows)

    def restore(self, value: Any) -> Any:
        if self.kept == len(self._order):
            return value
        return self._rows(value, self.kept, self._all_rows)

    def _rows(self, value: Any, blocks: int, change: Callable[[list[Any]], Any]) -> Any:
        """Apply ``change`` to the blocks of everything that has so many blocks of rows."""
        rows = blocks * self._batch

        def tensor(x: Tensor) -> Tensor:
            if len(x.shape) and x.shape[0] in (rows, rows * self._frames):
                return change(_split(x, blocks))
            return x

        if self._models.facts.listed:
            if isinstance(value, tuple):  # an output
                return tuple(self._rows(item, blocks, change) for item in value)
            if isinstance(value, list):
                return change(_split(value, blocks)) if len(value) == rows else value
            if not self._models.backend.is_tensor(value):
                return value
        return self._models.map(tensor, value)

    def _kept_rows(self, blocks: list[Any]) -> Any:
        return self._joined([blocks[i] for i in self._keep])

    def _all_rows(self, blocks: list[Any]) -> Any:
        computed = dict(zip((self._order[i] for i in self._keep), blocks, strict=True))
        return self._joined([computed.get(part, computed["conditional"]) for part in self._order])

    def _joined(self, blocks: list[Any]) -> Any:
        if len(blocks) == 1:
            return blocks[0]
        if isinstance(blocks[0], list):
            return [item for block in blocks for item in block]
        return self._models.backend.concat(blocks)


def _split(x: Any, blocks: int) -> list[Any]:
    each = len(x) // blocks if isinstance(x, list) else x.shape[0] // blocks
    return [x[i * each : (i + 1) * each] for i in range(blocks)]
