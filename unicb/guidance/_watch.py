"""Watch one step of a loop: the denoiser's outputs, and the loop's result for the scheduler."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from unicb.backend import Backend
from unicb.errors import UnsupportedPipelineError
from unicb.guidance._models import Models
from unicb.guidance._observed import Array, Combination, combination_of
from unicb.guidance._tree import leaves
from unicb.ops import Tensor

if TYPE_CHECKING:
    from unicb.run.holds import Hold
    from unicb.run.run import Run

#: How many elements of each row are looked at; further ones are left out.
ENOUGH = 4096


class Seen(NamedTuple):
    """``Seen`` holds one step of a loop with guidance.

    Attributes:
        parts: the denoiser's predictions, each in the shape of ``output``.
        output: the loop's result for its scheduler.
        combination: how the loop combined the parts; None if no combination fits.
        calls: number of calls of the denoiser.
    """

    parts: Sequence[Tensor]
    output: Tensor
    combination: Combination | None
    calls: int


#: A function that returns a tensor for the scheduler; None: the scheduler gets the loop's own.
See: TypeAlias = Callable[[Seen], Tensor | None]


class LoopWatch:
    """Watch a loop's steps with guidance, until removed.

    Args:
        models: the pipeline's models.
        run: the run whose calls count.
        see: called with each step that has several parts, before the scheduler gets its result.
        is_due: returns whether the step has to be watched; if not, nothing is read.
    """

    def __init__(self, models: Models, run: Run, see: See, is_due: Callable[[], bool]) -> None:
        self._models, self._run, self._see, self._is_due = models, run, see, is_due
        self._answers: list[tuple[Any, bool]] = []
        self._has_seen, self._is_enough, self._is_removed = False, False, False
        with ExitStack() as undo:
            undo.callback(models.remove)
            models.hook(self._answer)
            for scheduler in schedulers_of(models.pipeline):
                undo.callback(self._held_step(scheduler).release)
            self._undo = undo.pop_all()

    def remove(self) -> None:
        """Stop watching. Idempotent."""
        self._is_removed = True
        self._undo.close()
        self._answers.clear()

    def stop_after_this(self) -> None:
        """Stop watching once this step has ended."""
        self._is_enough = True

    def check_seen(self) -> None:
        """Raise UnsupportedPipelineError if a step has ended that should have been seen and was
        not."""
        if not self._has_seen:
            self._models.mismatch(
                "its loop has called no scheduler.step in a step",
                "unicb, not proven on this loop, has to see there how it guides",
            )
        if self._is_enough:
            self.remove()

    def _answer(
        self, name: str, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        out = call(*args, **kwargs)
        if name in self._models.facts.denoisers:
            self._answers.append((out, self._models.fills(kwargs)))
        return out

    def _predictions(self) -> list[Any]:
        """Return the outputs that are predictions: some calls only fill a cache, and some do
        both."""
        predicted = [answer for answer, fills in self._answers if not fills]
        facts = self._models.facts
        enough = len(predicted) >= (len(facts.order) if facts.cfg == "calls" else 1)
        return predicted if enough else [answer for answer, _ in self._answers]

    def _held_step(self, scheduler: Any) -> Hold:
        """Intercept the scheduler's ``step`` in the run's own calls, without an attribute on the
        scheduler: loops copy a scheduler's dictionary and restore it later."""
        with self._run.as_own():
            below = scheduler.step  # an earlier watch's, if there is one
        try:
            return self._run.hold(scheduler, "step", partial(self._step, below))
        except TypeError as error:
            raise UnsupportedPipelineError(
                f"cannot change guidance on {self._models.name}: unicb, not proven on its loop, "
                f"has to see how it guides, and its scheduler cannot be watched: {error}"
            ) from error

    def _step(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self._is_removed:
            return call(*args, **kwargs)
        answers, self._answers = self._predictions(), []
        names = ("model_output", "timestep", "sample")
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        output = given.get("model_output")
        if answers and self._models.backend.is_tensor(output):
            self._has_seen = True
            instead = self._instead(answers, output, given.get("sample"))
            if instead is not None and args:
                args = (instead, *args[1:])
            elif instead is not None:
                kwargs = {**kwargs, "model_output": instead}
        return call(*args, **kwargs)

    def _instead(self, answers: Sequence[Any], output: Tensor, sample: Any) -> Tensor | None:
        """Return the tensor for the scheduler in place of ``output``; None to keep ``output``."""
        try:
            if not self._is_due():
                return None
            loop, ops = self._run.target.scheduled, self._models.backend.ops
            if loop is None:
                return self._looked_at(answers, output, sample)
            locals_of = self._run.loop_locals
            if self._models.backend.is_tensor(sample):
                sample = loop.own(sample, locals_of)
            instead = self._looked_at(answers, loop.own(output, locals_of), sample)
            return None if instead is None else loop.as_stepped(instead, output, ops, locals_of)
        except BaseException:
            self._run.finish()
            raise

    def _looked_at(self, answers: Sequence[Any], output: Tensor, sample: Any) -> Tensor | None:
        seen = _seen(self._models, answers, output, sample)
        return None if seen is None else self._see(seen)


def schedulers_of(pipeline: Any) -> list[Any]:
    """Return the pipeline's schedulers that have a ``step``, each once."""
    found = {id(x): x for name, x in vars(pipeline).items() if "scheduler" in name}
    return [x for x in found.values() if callable(getattr(x, "step", None))]


def _seen(models: Models, answers: Sequence[Any], output: Tensor, sample: Any) -> Seen | None:
    """Return what was seen in a step; None if it had only one part, and so no guidance."""
    tensors = [_first(models, answer) for answer in answers]
    if max(len(answers), *(_blocks(x, output) for x in tensors)) < 2:
        # If the parts have other axes than the result, it is unclear which is which.
        folds = any(_is_folded(x, output) for x in tensors)
        return Seen([], output, None, len(answers)) if folds else None
    backend = models.backend
    thin = _thinned(backend, output)
    wanted = thin(output)
    if not np.any(wanted):
        return None  # some loops begin with a step of zeros
    found: list[Tensor] = []
    for parts in _shaped(tensors, output):
        found = found or parts
        columns = [thin(x) for x in parts]
        if all(np.array_equal(columns[0], x) for x in columns[1:]):
            return None  # equal parts, as after a cut: guidance has no effect
        start = thin(sample) if backend.is_tensor(sample) and _fits(output, sample) else None
        made = combination_of(columns, wanted, start, _precision(parts[0], output))
        if made is not None:
            return Seen(parts, output, made, len(answers))
    return Seen(found, output, None, len(answers))


def _first(models: Models, answer: Any) -> Any:
    """Return the prediction in a denoiser's output: a tensor, or in a listed batch a list of
    tensors."""
    is_tensor = models.backend.is_tensor
    if models.facts.listed:
        inner = answer
        while isinstance(inner, Mapping | list | tuple) and len(inner):
            first = next(iter(inner.values())) if isinstance(inner, Mapping) else inner[0]
            if is_tensor(first) and not isinstance(inner, Mapping):
                break
            inner = first
        if isinstance(inner, list | tuple) and len(inner):
            return models.backend.ops.concat([x.reshape((1, *x.shape)) for x in inner])
    return next((x for x in leaves(answer, is_tensor) if len(x.shape)), None)


def _blocks(x: Any, output: Tensor) -> int:
    """Count the blocks of ``x``, each with as many rows as the output."""
    rows, each = (int(x.shape[0]), int(output.shape[0])) if x is not None else (0, 1)
    return rows // each if each and rows % each == 0 else 1


def _is_folded(x: Any, output: Tensor) -> bool:
    """Return whether ``x`` has several times as many elements as the output, on another number of
    axes."""
    if x is None or len(x.shape) == len(output.shape):
        return False
    return bool(math.prod(x.shape) >= 2 * math.prod(output.shape))


def _shaped(tensors: Sequence[Any], output: Tensor) -> Iterator[list[Tensor]]:
    """Yield the parts brought to the output's shape, in each way in which a loop may do that."""
    if any(x is None for x in tensors):
        return
    parts: list[Tensor] = []
    for x in tensors:
        count = _blocks(x, output)
        each = int(output.shape[0])
        blocks = [x[i * each : (i + 1) * each] for i in range(count)]
        parts += blocks if count > 1 else [x]
    for way in (_as_it_is, _beginning, _end, _reshaped):
        shaped = [way(x, output) for x in parts]
        if all(x is not None for x in shaped):
            yield shaped


def _same(x: Tensor, output: Tensor) -> bool:
    return tuple(x.shape) == tuple(output.shape)


def _as_it_is(x: Tensor, output: Tensor) -> Tensor | None:
    return x if _same(x, output) else None


def _fits(x: Tensor, output: Tensor) -> bool:
    """Return whether the output may be ``x`` or a part of ``x``."""
    lengths = list(zip(x.shape, output.shape, strict=False))
    return len(x.shape) == len(output.shape) and all(n >= m for n, m in lengths)


def _beginning(x: Tensor, output: Tensor) -> Tensor | None:
    """Return the beginning of ``x``, for a loop that cuts off a learned variance or a reference's
    tokens; None if the shapes do not fit."""
    return x[tuple(slice(0, int(n)) for n in output.shape)] if _fits(x, output) else None


def _end(x: Tensor, output: Tensor) -> Tensor | None:
    """Return the end of ``x``, for a loop that cuts off a text's tokens; None if the shapes do not
    fit."""
    if not _fits(x, output):
        return None
    ends = zip(x.shape, output.shape, strict=True)
    return x[tuple(slice(int(n) - int(m), int(n)) for n, m in ends)]


def _reshaped(x: Tensor, output: Tensor) -> Tensor | None:
    same = math.prod(x.shape) == math.prod(output.shape)
    return x.reshape(tuple(int(n) for n in output.shape)) if same else None


def _thinned(backend: Backend, output: Tensor) -> Callable[[Tensor], Array]:
    """Return a function that copies some of the elements of tensors like ``output`` to the host.

    All channels and frames are kept, since a loop may treat each differently.
    """
    shape = [int(n) for n in output.shape]
    steps = [1] * len(shape)
    axes = range(1, 2) if len(shape) == 3 else range(max(1, len(shape) - 2), len(shape))
    while (
        axes and math.prod(-(-n // s) for n, s in zip(shape[1:], steps[1:], strict=True)) > ENOUGH
    ):
        longest = max(axes, key=lambda axis: shape[axis] / steps[axis])
        if shape[longest] <= steps[longest]:
            break
        steps[longest] *= 2
    slices = tuple(slice(None, None, step) for step in steps)

    def thin(x: Tensor) -> Array:
        return np.asarray(backend.ops.to_numpy(x[slices]), np.float64)

    return thin


def _precision(*tensors: Tensor) -> float:
    """Return the largest machine epsilon among the tensors' dtypes."""
    names = [str(x.dtype).lower() for x in tensors]
    least = {"bfloat16": 2.0**-8, "float16": 2.0**-11, "float64": 2.0**-53}
    found = [next((e for name, e in least.items() if name in n), 2.0**-24) for n in names]
    return max(found)
