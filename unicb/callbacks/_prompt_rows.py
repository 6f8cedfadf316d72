"""Find the prompts' rows in a tensor of the loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from unicb.backend import Backend
from unicb.errors import UnsupportedPipelineError
from unicb.ops import Tensor
from unicb.pipelines import Part, PipelineFacts
from unicb.step import Step

_USUAL = PipelineFacts(source="most pipelines")


class Rows:
    """``Rows`` tells which rows of one tensor belong to which picture, at one step.

    Attributes:
        batch: number of pictures that the run makes.

    Raises:
        UnsupportedPipelineError: the tensor's number of rows does not fit the number of pictures.
    """

    def __init__(self, step: Step, name: str, tensor: Tensor) -> None:
        facts = step.run.target.facts or _USUAL
        kind = type(step.pipeline).__name__
        batch: Any = step.in_loop(facts.batch_of)
        if not (hasattr(batch, "shape") and hasattr(tensor, "shape")):
            raise UnsupportedPipelineError(
                f"{kind}: how many rows of {name} belong to each picture is not known"
            )
        self.batch = int(batch.shape[0])
        frames = 1 if facts.frames_axis is None else int(batch.shape[facts.frames_axis])
        orders: dict[int, Sequence[Part]] = {1: ("conditional",)}
        if facts.cfg == "batch":
            least = [part for part in facts.order if part != "perturbed"]
            orders |= {len(least): least, len(facts.order): facts.order}
        count, rest = divmod(int(tensor.shape[0]), self.batch)
        for repeats in (1, frames):  # some video pipelines repeat each row for each frame
            if not rest and count % repeats == 0 and count // repeats in orders:
                self._order, self._repeats = orders[count // repeats], repeats
                return
        known = " or ".join(str(blocks * self.batch) for blocks in sorted(orders))
        raise UnsupportedPipelineError(
            f"{kind}: {name} has {tensor.shape[0]} rows for a batch of {self.batch}, where {known} "
            "are known"
        )

    def of(self, part: Part, tensor: Tensor) -> Tensor | None:
        """Return the rows of a part of guidance, one for each picture; None if the tensor has no
        such rows."""
        if part not in self._order:
            return None
        size = self.batch * self._repeats
        start = list(self._order).index(part) * size
        return tensor[start : start + size : self._repeats]

    def put(self, backend: Backend, tensor: Tensor, parts: Mapping[Part, Tensor]) -> Tensor:
        """Return a copy of ``tensor`` with new rows for some parts; each has one row for each
        picture."""
        size = self.batch * self._repeats
        blocks: list[Tensor] = []
        for index, part in enumerate(self._order):
            if part not in parts:
                blocks.append(tensor[index * size : (index + 1) * size])
            elif self._repeats == 1:
                blocks.append(parts[part])
            else:
                rows = [parts[part][row : row + 1] for row in range(self.batch)]
                blocks += [row for row in rows for _ in range(self._repeats)]
        return blocks[0] if len(blocks) == 1 else backend.ops.concat(blocks)
