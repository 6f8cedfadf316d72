"""Change the unconditional prediction, so that the loop's own formula gives another result.

Predictions pass through the denoiser's call. The conditional one is not changed, because some loops
compare it with their result; only the unconditional one is replaced.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

from unicb.guidance._batch import Batched
from unicb.guidance._calls import CountedCalls
from unicb.guidance._models import Models
from unicb.guidance._tree import leaves, mapped
from unicb.ops import Tensor

#: ``moved(unconditional, conditional)`` returns the tensor that replaces the unconditional one.
Moved: TypeAlias = Callable[[Tensor, Tensor], Tensor]


class Moves(Protocol):
    """``Moves`` says how to change a run's unconditional predictions."""

    @property
    def aim(self) -> str:
        """Return in words, for messages, what needs exactly two parts; empty if nothing is done
        now."""

    def in_this_call(self) -> Moved | None:
        """Return the change for the denoiser's current call; None: no change."""

    def check_guided(self, found: bool) -> None:
        """Raise UnsupportedPipelineError if the first step has no guidance (``found`` is False) and
        should have."""

    def step_end(self) -> None:
        """Note that a step has ended."""

    def remove(self) -> None:
        """Put the pipeline's attributes back. Idempotent."""


class BatchMoves(Batched):
    """Change the unconditional rows of the denoiser's output."""

    def __init__(self, models: Models, latents: Tensor, moves: Moves) -> None:
        super().__init__(models, latents)
        self._moves = moves
        self._guided = False
        models.hook(self._answer)

    def step_end(self) -> None:
        self._moves.step_end()

    def remove(self) -> None:
        self._models.remove()
        self._moves.remove()

    def _answer(
        self, name: str, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if name not in self._models.facts.denoisers or self._models.fills(kwargs):
            return call(*args, **kwargs)
        rows, each = self._counted(self._models.sample(args, kwargs))
        order = self._order(rows, each)
        if order is None:
            if rows != each:
                self._refuse(name, rows, each)
            # There are only conditional rows during a cut; some loops also have steps without
            # guidance, or compute further conditional rows.
            self._moves.check_guided(self._guided)
            return call(*args, **kwargs)
        if order.count("unconditional") > 1 and self._moves.aim:
            self._models.mismatch(f"it called its {name} with {len(order)} parts", self._moves.aim)
        self._guided = True
        moved = self._moves.in_this_call()
        out = call(*args, **kwargs)
        return out if moved is None else self._blocks(order).with_unconditional(out, moved)


class CallsMoves(CountedCalls):
    """Change the output of a step's unconditional call of the denoiser."""

    def __init__(self, models: Models, moves: Moves) -> None:
        self._moves = moves
        self._guided = False
        super().__init__(models)

    def step_end(self) -> None:
        self._moves.check_guided(self._guided)
        self._moves.step_end()
        super().step_end()

    def remove(self) -> None:
        super().remove()
        self._moves.remove()

    def _unconditional(
        self, name: str, key: str, shape: tuple[int, ...], call: Callable[[], Any], fills: bool
    ) -> Any:
        out = call()
        if name not in self._models.facts.denoisers:
            return out
        self._guided = True
        moved = self._moves.in_this_call()
        if moved is None:
            return out
        is_tensor = self._models.backend.is_tensor
        both = [list(leaves(x, is_tensor)) for x in (out, self._conditional.get(key))]
        if len(both[0]) != len(both[1]):
            self._models.mismatch(
                f"the unconditional call of its {name} answered with {len(both[0])} tensors",
                f"the conditional one had {len(both[1])}",
            )
        made = iter([self._combined(name, moved, u, c) for u, c in zip(*both, strict=True)])
        return mapped(lambda _: next(made), out, is_tensor)

    def _combined(self, name: str, moved: Moved, unconditional: Tensor, conditional: Tensor) -> Any:
        whole, shape = tuple(conditional.shape), tuple(unconditional.shape)
        if whole == shape:
            return moved(unconditional, conditional)
        if self._models.facts.tail and (*whole[:1], *whole[2:]) == (*shape[:1], *shape[2:]):
            both = min(whole[1], shape[1])
            u, c = (x[:, x.shape[1] - both :] for x in (unconditional, conditional))
            return moved(u, c)
        self._models.mismatch(
            f"the unconditional call of its {name} answered with a tensor of shape {shape}",
            f"the conditional one had {whole}",
        )
