"""Cut guidance in loops that call the denoiser several times a step, and whose flag for guidance is
a local variable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

from unicb.guidance._models import Models
from unicb.guidance._replaced import FirstStep
from unicb.guidance._tree import mapped


class CountedCalls:
    """Tell a step's unconditional calls from its conditional call by counting them."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self._order = models.facts.order
        self._calls: Counter[str] = Counter()
        self._conditional: dict[str, Any] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        models.hook(self._answer)

    def step_end(self) -> None:
        self._forget()

    def _forget(self) -> None:
        """Start counting from 0 again, and forget the step's answers."""
        self._calls.clear()
        self._conditional.clear()
        self._shapes.clear()

    def remove(self) -> None:
        self._forget()
        self._models.remove()

    def _answer(
        self, name: str, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        # A pipeline with several denoisers uses one of them in a step: their calls count together.
        key = "denoiser" if name in self._models.facts.denoisers else name
        count = self._calls[key]
        self._calls[key] += 1
        if count >= len(self._order):
            self._models.mismatch(
                f"it called its {name} {count + 1} times in a step",
                f"guidance takes {len(self._order)} calls",
            )
        sample = self._models.sample(args, kwargs)
        shape = tuple(getattr(sample, "shape", ()))
        if self._order[count] == "unconditional":
            fills = self._models.fills(kwargs)
            return self._unconditional(name, key, shape, lambda: call(*args, **kwargs), fills)
        out = call(*args, **kwargs)
        if self._order[count] == "conditional":
            self._conditional[key], self._shapes[key] = out, shape
            if not self._models.fills(kwargs):
                self._check(name, out, partial(call, *args, **kwargs))
        return out

    def _check(self, name: str, out: Any, again: Callable[[], Any]) -> None:
        """Raise UnsupportedPipelineError if the answer of a conditional call cannot be trusted."""

    def _unconditional(
        self, name: str, key: str, shape: tuple[int, ...], call: Callable[[], Any], fills: bool
    ) -> Any:
        """Return the answer to an unconditional call with a sample of this shape. ``fills`` is True
        if the call also fills a cache."""
        raise NotImplementedError


class CallsCut(CountedCalls):
    """Answer a step's unconditional calls with the output of its conditional call."""

    holds_scale = False

    def __init__(self, models: Models) -> None:
        self._verified = FirstStep(models)
        self._left_out = 0
        super().__init__(models)

    def step_end(self) -> None:
        calls, left_out = self._calls["denoiser"], self._left_out
        self._models.note(calls - left_out, calls, "calls")
        self._left_out = 0
        super().step_end()
        self._verified.over()

    def restore(self) -> None:
        self._models.reset_all_caches()
        self.remove()

    def _check(self, name: str, out: Any, again: Callable[[], Any]) -> None:
        self._verified.check_same(name, out, again)

    def _unconditional(
        self, name: str, key: str, shape: tuple[int, ...], call: Callable[[], Any], fills: bool
    ) -> Any:
        if fills:
            call()  # the cache that it fills is needed once guidance is restored
        elif key == "denoiser":
            self._left_out += 1
        return self._of_conditional(name, key, shape)

    def _of_conditional(self, name: str, key: str, shape: tuple[int, ...]) -> Any:
        """Return the conditional call's answer, for an unconditional call with a sample of this
        shape."""
        whole = self._shapes.get(key, ())
        if shape == whole:
            return self._conditional[key]
        if self._models.facts.tail and (*whole[:1], *whole[2:]) == (*shape[:1], *shape[2:]):
            first = whole[1] - shape[1]
            return mapped(
                lambda x: x[:, first:] if tuple(x.shape[:2]) == whole[:2] else x,
                self._conditional[key],
                self._models.backend.is_tensor,
            )
        self._models.mismatch(
            f"the unconditional call of its {name} has a sample of shape {shape}",
            f"the conditional one had {whole}",
        )
