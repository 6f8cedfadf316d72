"""Guidance of another scale than the one that a pipeline was called with.

Where the loop reads its scale at each step, another one is set. Elsewhere the scale is a local of
the loop, out of reach. But what the loop combines passes through the denoiser's call: of the
conditional prediction c and the unconditional one u it makes ``u + g * (c - u)``, with its own g.
With ``c + k * (u - c)`` in the place of u, where ``k = (s - 1) / (g - 1)``, that is
``u + s * (c - u)``: what the scale s would give. Of loops that make ``c + g * (c - u)`` the same
holds with ``k = s / g``. c stays what it is, as loops need that rescale what they have combined by
the norm or the deviation of c.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from numbers import Real
from typing import TYPE_CHECKING, Any

from unicb.errors import UnsupportedPipelineError
from unicb.guidance._attributes import Ours, put_back
from unicb.guidance._batch import Batched
from unicb.guidance._calls import CountedCalls
from unicb.guidance._models import Models
from unicb.guidance._tree import leaves, mapped
from unicb.ops import Tensor
from unicb.pipelines import PipelineFacts
from unicb.pipelines.source import CallSource

if TYPE_CHECKING:
    from unicb.run.run import Run

AIM = "set guidance"
_ATTRIBUTE = "self."


def read_at_each_step(facts: PipelineFacts) -> bool:
    """Whether the loop reads its scale from the pipeline, after it has called the denoiser."""
    return facts.guidance_scale == "property" and facts.scale_names[0].startswith(_ATTRIBUTE)


def scale_of(pipeline: Any, facts: PipelineFacts, run: Run) -> float | None:
    """The scale that the loop guides its current step with; None if it has none by those names."""
    for name in facts.scale_names:
        if name.startswith(_ATTRIBUTE):
            value = getattr(pipeline, name.removeprefix(_ATTRIBUTE), None)
        else:
            value = run.loop_locals([name]).get(name)
        if isinstance(value, Real):
            return float(value)
        if value is not None and len(getattr(value, "shape", (0,))) == 1 and len(value):
            return float(value[min(run.index + 1, len(value) - 1)])  # one for each step
    return None


def has_scale(kind: type, facts: PipelineFacts) -> bool:
    """Whether the loop of a class may have a scale by one of those names: it is an attribute, or a
    local of one of the class's methods. Of a loop that is not found there, nothing is known."""
    there = CallSource.of(kind).local_names
    if not there:
        return True
    return any(name.startswith(_ATTRIBUTE) or name in there for name in facts.scale_names)


def without_guidance(
    pipeline: Any, facts: PipelineFacts, scale: float | None
) -> UnsupportedPipelineError:
    """The error for a run that was called without the guidance that is to be set."""
    kind = type(pipeline)
    taken = CallSource.of(kind).parameters
    names = [name.removeprefix(_ATTRIBUTE).lstrip("_") for name in facts.scale_names]
    argument = next((name for name in names if name in taken), "guidance_scale")
    found = "" if scale is None else f" (its {argument} is {scale:g})"
    above = facts.guided_above if math.isfinite(facts.guided_above) else 1.0
    negative = " and a negative_prompt" if facts.cfg == "calls" else ""
    return UnsupportedPipelineError(
        f"cannot {AIM} in this run: {kind.__name__} was called with guidance off{found}; call it "
        f"with {argument} above {above:g}{negative}"
    )


class PropertyScale:
    """Sets the attribute that the loop reads its scale from."""

    def __init__(self, pipeline: Any, facts: PipelineFacts) -> None:
        self._pipeline = pipeline
        self._off = facts.guided_above
        self._name = facts.scale_names[0].removeprefix(_ATTRIBUTE)
        if not hasattr(pipeline, self._name):
            raise UnsupportedPipelineError(
                f"cannot {AIM} on {type(pipeline).__name__}: it has no attribute {self._name}, "
                "where its loop should read its scale"
            )
        before = getattr(pipeline, self._name)
        follow = [name for name in facts.scale_follows if getattr(pipeline, name, None) == before]
        self._before = {name: getattr(pipeline, name) for name in (self._name, *follow)}
        self._set: dict[str, Ours] = {}

    def is_off(self, scale: float) -> bool:
        # The property may ask for more than this scale: there may be another one, of sound.
        found = {name: getattr(self._pipeline, name) for name in self._before}
        try:
            for name in found:
                setattr(self._pipeline, name, scale)
            asked = getattr(self._pipeline, "do_classifier_free_guidance", None)
        finally:
            for name, value in found.items():
                setattr(self._pipeline, name, value)
        return not asked if asked is not None else scale <= self._off

    def set(self, scale: float | None) -> None:
        if scale is None:
            return
        for name in self._before:
            self._set[name] = Ours(scale)
            setattr(self._pipeline, name, self._set[name])

    def step_end(self) -> None:
        pass

    def remove(self) -> None:
        for name in self._set:
            put_back(self._pipeline, name, self._before[name], self._set)
        self._set.clear()


class _Moved:
    """How far the unconditional predictions of a run are to be moved."""

    def __init__(self, models: Models, run: Run) -> None:
        self._models, self._run = models, run
        self.scale: float | None = None

    def is_off(self, scale: float) -> bool:
        return scale <= self._models.facts.guided_above

    def factor(self) -> float:
        """What the difference between the two predictions is multiplied by in this step."""
        if self.scale is None:
            return 1.0
        facts, name = self._models.facts, " or ".join(self._models.facts.scale_names)
        loops = scale_of(self._models.pipeline, facts, self._run)
        if loops is None:
            self._models.mismatch(f"it has no scale called {name}", "its loop should have one")
        if loops == self.scale:
            return 1.0
        least = 1.0 if facts.combination == "from_unconditional" else 0.0
        if loops == least:
            raise without_guidance(self._models.pipeline, facts, loops)
        return (self.scale - least) / (loops - least)

    def check_guided(self, found: bool) -> None:
        """Raise if the first step is without guidance, though it should have some."""
        if not found and self.scale is not None and self._run.index < 0:
            pipeline, facts = self._models.pipeline, self._models.facts
            raise without_guidance(pipeline, facts, scale_of(pipeline, facts, self._run))


def _moved(factor: float, unconditional: Any, conditional: Any) -> Any:
    """``unconditional`` moved on the line through both. What is not of floats stays."""
    if "float" not in str(getattr(unconditional, "dtype", "")).lower():
        return unconditional
    return conditional + (unconditional - conditional) * factor


class BatchScale(Batched):
    """Moves the unconditional rows of what the denoiser answers."""

    def __init__(self, models: Models, latents: Tensor, run: Run) -> None:
        super().__init__(models, latents)
        self._moved = _Moved(models, run)
        models.hook(self._answer)

    def is_off(self, scale: float) -> bool:
        return self._moved.is_off(scale)

    def set(self, scale: float | None) -> None:
        self._moved.scale = scale

    def step_end(self) -> None:
        pass

    def remove(self) -> None:
        self._models.remove()

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
            # A cut leaves the conditional rows alone; and some loops take steps without guidance.
            self._moved.check_guided(False)
            return call(*args, **kwargs)
        if order.count("unconditional") > 1 and self._moved.scale is not None:
            self._models.mismatch(
                f"it called its {name} with {len(order)} parts", "guidance of two can be scaled"
            )
        factor, out = self._moved.factor(), call(*args, **kwargs)
        if factor == 1.0:
            return out
        return self._blocks(order).with_unconditional(out, partial(_moved, factor))


class CallsScale(CountedCalls):
    """Moves what the denoiser answers to a step's unconditional call."""

    def __init__(self, models: Models, run: Run) -> None:
        self._moved = _Moved(models, run)
        self._guided = False
        super().__init__(models)

    def is_off(self, scale: float) -> bool:
        return self._moved.is_off(scale)

    def set(self, scale: float | None) -> None:
        self._moved.scale = scale

    def step_end(self) -> None:
        self._moved.check_guided(self._guided)
        super().step_end()

    def _unconditional(
        self, name: str, key: str, shape: tuple[int, ...], call: Callable[[], Any], fills: bool
    ) -> Any:
        out = call()
        if name not in self._models.facts.denoisers:
            return out
        self._guided = True
        factor = self._moved.factor()
        if factor == 1.0:
            return out
        is_tensor = self._models.backend.is_tensor
        both = [list(leaves(x, is_tensor)) for x in (out, self._conditional.get(key))]
        if len(both[0]) != len(both[1]):
            self._models.mismatch(
                f"the unconditional call of its {name} answered with {len(both[0])} tensors",
                f"the conditional one had {len(both[1])}",
            )
        moved = (self._combined(name, factor, u, c) for u, c in zip(*both, strict=True))
        return mapped(lambda _: next(moved), out, is_tensor)

    def _combined(
        self, name: str, factor: float, unconditional: Tensor, conditional: Tensor
    ) -> Any:
        whole, shape = tuple(conditional.shape), tuple(unconditional.shape)
        if whole == shape:
            return _moved(factor, unconditional, conditional)
        if self._models.facts.tail and (*whole[:1], *whole[2:]) == (*shape[:1], *shape[2:]):
            both = min(whole[1], shape[1])
            ends = (x[:, x.shape[1] - both :] for x in (unconditional, conditional))
            return _moved(factor, *ends)
        self._models.mismatch(
            f"the unconditional call of its {name} answered with a tensor of shape {shape}",
            f"the conditional one had {whole}",
        )
