"""Leave blocks of rows out of a call's arguments, and put them back into its output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from unicb.backend import Backend
from unicb.guidance._tree import mapped
from unicb.pipelines import Part, PipelineFacts


class Blocks:
    """``Blocks`` are the blocks of rows in one call of a model."""

    def __init__(
        self,
        backend: Backend,
        facts: PipelineFacts,
        order: tuple[Part, ...],
        batch: int,
        frames: int,
    ) -> None:
        """Note the form of the blocks: ``batch`` is the number of rows of the latents, ``frames``
        the number of frames of each row, 1 for images."""
        self._backend = backend
        self._facts = facts
        self._order = order
        self._batch = batch
        self._frames = frames
        keep = [i for i, part in enumerate(order) if part != "unconditional"]
        self._first, self.kept = keep[0], len(keep)

    def cut_arguments(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments of the call without the unconditional rows."""
        cut = {name: self._cut_argument(name, value) for name, value in kwargs.items()}
        return tuple(mapped(self._cut, value, self._has_rows) for value in args), cut

    def restore(self, out: Any) -> Any:
        """Return the call's output, with conditional rows in place of the missing unconditional
        rows."""
        if self.kept == len(self._order):
            return out
        return mapped(self._restored, out, self._has_rows)

    def with_unconditional(self, out: Any, replace: Callable[[Any, Any], Any]) -> Any:
        """Return the call's output with its unconditional rows replaced by
        ``replace(unconditional, conditional)``."""
        return mapped(lambda x: self._with_unconditional(x, replace), out, self._has_rows)

    def _with_unconditional(self, x: Any, replace: Callable[[Any, Any], Any]) -> Any:
        each = self._each(x, len(self._order))
        if not each:
            return x
        parts = [x[i * each : (i + 1) * each] for i in range(len(self._order))]
        conditional = parts[self._order.index("conditional")]
        for i, part in enumerate(parts):
            if self._order[i] != "unconditional":
                continue
            if isinstance(x, list):
                parts[i] = self._replaced_rows(part, conditional, replace)
            else:
                parts[i] = replace(part, conditional)
        return self._joined(x, parts)

    def _replaced_rows(
        self, unconditional: list[Any], conditional: list[Any], replace: Callable[[Any, Any], Any]
    ) -> list[Any]:
        """Replace all rows at once if they have one shape; otherwise one by one."""
        pairs = list(zip(unconditional, conditional, strict=True))
        if len({(tuple(u.shape), tuple(c.shape)) for u, c in pairs}) > 1:
            return [replace(*(x.reshape((1, *x.shape)) for x in pair))[0] for pair in pairs]
        both = ([x.reshape((1, *x.shape)) for x in part] for part in zip(*pairs, strict=True))
        made = replace(*map(self._backend.ops.concat, both))
        return [made[row] for row in range(len(pairs))]

    def _joined(self, x: Any, blocks: list[Any]) -> Any:
        """Join the blocks to one value of the type of ``x``: a tensor, or a list of rows."""
        if isinstance(x, list):
            return [item for block in blocks for item in block]
        return self._backend.ops.concat(blocks)

    def _cut_argument(self, name: str, value: Any) -> Any:
        if name in self._facts.unbatched:
            return value
        if name in self._facts.by_row:
            first = self._first * self._batch
            kept = range(first, first + self.kept * self._batch)
            return {row - first: value[row] for row in value if row in kept}
        axis = self._facts.axes.get(name, 0)
        return mapped(lambda x: self._cut(x, axis), value, self._has_rows)

    def _has_rows(self, value: Any) -> bool:
        """Return whether a value may have rows: a tensor, or a list of rows."""
        return self._backend.is_tensor(value) or (self._facts.listed and isinstance(value, list))

    def _each(self, x: Any, blocks: int, axis: int = 0) -> int:
        """Return how many rows each block of ``x`` has; 0 if ``x`` does not consist of ``blocks``
        blocks of rows."""
        if isinstance(x, list):
            return self._batch if len(x) == blocks * self._batch else 0
        for each in (self._batch, self._batch * self._frames):
            if len(x.shape) > axis and x.shape[axis] == blocks * each:
                return each
        return 0

    def _cut(self, x: Any, axis: int = 0) -> Any:
        each = self._each(x, len(self._order), axis)
        rows = slice(self._first * each, (self._first + self.kept) * each)
        if not each:
            return x
        return x[rows] if axis == 0 else x[(*[slice(None)] * axis, rows)]

    def _restored(self, x: Any) -> Any:
        each = self._each(x, self.kept)
        if not each:
            return x
        parts = [part for part in self._order if part != "unconditional"]
        computed: dict[Part, Any] = {
            part: x[i * each : (i + 1) * each] for i, part in enumerate(parts)
        }
        return self._joined(x, [computed.get(p, computed["conditional"]) for p in self._order])
