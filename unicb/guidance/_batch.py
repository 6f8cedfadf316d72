"""Cut guidance in loops that call the denoiser once a step, on a batch of several blocks of
rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from unicb.guidance._blocks import Blocks
from unicb.guidance._models import Models
from unicb.guidance._perturbed import PerturbedAttention
from unicb.guidance._replaced import FirstStep
from unicb.guidance._tree import leaves
from unicb.ops import Tensor
from unicb.pipelines import Part


class Batched:
    """Recognise a model's calls with several blocks of rows.

    A tensor counts as having rows if the size of its first axis is exactly the number of blocks
    times the batch, or that times the number of frames, and the facts do not list its argument as
    one without rows.
    """

    def __init__(self, models: Models, latents: Tensor) -> None:
        self._models = models
        self._batch = int(latents.shape[0])
        self._axes = len(latents.shape)
        axis = models.facts.frames_axis
        self._frames = 1 if axis is None else int(latents.shape[axis])

    def _counted(self, sample: Any) -> tuple[int, int]:
        """Return how many rows a sample has, and how many rows each block has."""
        rows = len(sample) if isinstance(sample, list) else int(getattr(sample, "shape", [0])[0])
        # A sample with one axis less than the latents has a row for each frame.
        folded = self._frames > 1 and 1 < len(getattr(sample, "shape", ())) < self._axes
        return rows, self._batch * (self._frames if folded else 1)

    def _order(self, rows: int, each: int) -> tuple[Part, ...] | None:
        """Return the order of the blocks in a call with this many rows; None if the call is not
        guided."""
        facts = self._models.facts
        orders = (facts.order[:n] for n in range(len(facts.order), facts.least_blocks - 1, -1))
        return next((order for order in orders if rows == len(order) * each), None)

    def _refuse(self, name: str, rows: int, each: int) -> NoReturn:
        self._models.mismatch(
            f"it called its {name} with {rows} rows",
            f"guidance should give {len(self._models.facts.order) * each}",
        )

    def _blocks(self, order: tuple[Part, ...]) -> Blocks:
        models = self._models
        return Blocks(models.backend, models.facts, order, self._batch, self._frames)


class BatchCut(Batched):
    """Leave the unconditional rows out of the models' calls, and put the conditional rows of the
    output in their place."""

    holds_scale = False

    def __init__(self, models: Models, latents: Tensor) -> None:
        super().__init__(models, latents)
        self._perturbed = PerturbedAttention(models)
        self._called = False
        self._first_step = True
        self._verified = FirstStep(models)
        models.hook(self._answer)
        try:
            models.reset_caches()
        except BaseException:
            models.remove()
            raise

    def step_end(self) -> None:
        if self._first_step and not self._called:
            denoisers = " or ".join(self._models.facts.denoisers)
            self._models.mismatch(f"its {denoisers} was not called in a step", "each step calls it")
        self._first_step = False
        self._verified.over()

    def restore(self) -> None:
        self.remove()  # makes the caches forget in any case

    def remove(self) -> None:
        try:
            self._models.reset_caches()
        finally:
            self._models.remove()
            self._perturbed.remove()

    def _answer(
        self, name: str, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if self._models.fills(kwargs):
            return call(*args, **kwargs)
        sample = self._models.sample(args, kwargs)
        rows, each = self._counted(sample)
        denoises = name in self._models.facts.denoisers
        self._called = self._called or denoises
        order = self._order(rows, each)
        if order is None:
            if denoises and rows != each:
                self._refuse(name, rows, each)
            # Guidance is off, or the model gets only the conditional rows, like a ControlNet in
            # guess mode: there is nothing to cut.
            return call(*args, **kwargs)
        if "perturbed" in order and denoises:
            self._perturbed.without_unconditional()
        blocks = self._blocks(order)
        args, kwargs = blocks.cut_arguments(args, kwargs)
        out = self._verified.call(name, call, args, kwargs)
        if denoises:
            self._check_rows(name, out, blocks.kept * each)
            self._models.note(blocks.kept * each, rows, by=name)
        return blocks.restore(out)

    def _check_rows(self, name: str, out: Any, rows: int) -> None:
        if self._models.facts.listed:
            return
        tensors = leaves(out, self._models.backend.is_tensor)
        first = next((x for x in tensors if len(x.shape)), None)
        if first is not None and first.shape[0] != rows:
            self._models.mismatch(
                f"its {name}, called with {rows} rows, answered with {int(first.shape[0])}",
                "it should answer with as many",
            )
