"""Cut guidance in loops that call the denoiser several times a step, if a property read at each
step says so."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Self

from unicb.guidance._attributes import Ours, put_back
from unicb.guidance._models import Models
from unicb.guidance._replaced import FirstStep


class SwitchCut:
    """Set the attributes from which the property is computed."""

    holds_scale = True

    def __init__(self, models: Models) -> None:
        self._attributes = models.attributes
        self._models = models
        self._before: dict[str, Any] = {}
        self._set: dict[str, Ours] = {}
        self._calls = 0
        self._verified = FirstStep(models)
        for name, value in models.facts.off.items():
            if not hasattr(self._attributes, name):
                self.remove()
                models.mismatch(f"it has no attribute {name}", "its loop should read that")
            self._before[name] = getattr(self._attributes, name)
            self._set[name] = Ours(value)
            setattr(self._attributes, name, self._set[name])
        if models.facts.verify or self._verified.verifies:
            try:
                models.hook(self._counted)
            except BaseException:
                self.remove()
                raise

    @classmethod
    def of(cls, models: Models) -> Self | None:
        """Make the cut; return None if guidance is off in this run."""
        attributes = models.attributes
        if attributes is models.pipeline:
            is_on = getattr(attributes, "do_classifier_free_guidance", True)
        else:
            off = models.facts.off.items()
            is_on = any(getattr(attributes, name, None) != value for name, value in off)
        return cls(models) if is_on else None

    def step_end(self) -> None:
        """Note that a step has ended; if the facts are to be verified, the first step verifies
        them."""
        if self._calls > 1 and self._models.facts.verify:
            self.remove()
            self._models.mismatch(
                f"it called a model {self._calls} times in a step with guidance switched off",
                "one call should do",
            )
        self._verified.over()
        self._models.remove()
        order = self._models.facts.order
        self._models.note(len(order) - order.count("unconditional"), len(order), "calls")

    def restore(self) -> None:
        self._models.reset_all_caches()
        self.remove()

    def remove(self) -> None:
        self._models.remove()
        while self._before:
            put_back(self._attributes, *self._before.popitem(), self._set)

    def _counted(
        self, name: str, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        self._calls += name in self._models.facts.denoisers and not self._models.fills(kwargs)
        out = call(*args, **kwargs)
        if not self._models.fills(kwargs):
            self._verified.check_same(name, out, partial(call, *args, **kwargs))
        return out
