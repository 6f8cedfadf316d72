"""Stop a loop: by its flag, or by leaving it nothing to do.

Most loops read ``pipeline.interrupt`` and skip the steps that are left. The others run on; so their
models answer what they have answered last, without computing it, the scheduler leaves the latents
as they are, and the loop runs out on its own, to decode the latents of the step that it was
stopped after.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from types import MethodType
from typing import TYPE_CHECKING, Any, cast

from unicb.backend import Backend
from unicb.errors import UnsupportedPipelineError

if TYPE_CHECKING:
    from unicb.run.run import Run

log = logging.getLogger("unicb")

_STEP = -1, 0


class Replay:
    """Make the rest of a loop do nothing, once :attr:`stopped` is set; until then look on.

    Of each model, the last output is kept for each number of rows: loops may leave guidance out of
    some of their steps. So it is of the scheduler's step. What has none by the time of the stop
    (after the first step nothing has) is called once more.

    Args:
        pipeline: whose loop it is.
        models: that the loop calls.
        run: whose calls these are; others pass.
    """

    def __init__(self, pipeline: Any, models: Sequence[Any], run: Run) -> None:
        self.stopped = False
        self._owns = run.owns_current_call
        self._last: dict[tuple[int, int], Any] = {}
        with ExitStack() as undo:
            for key, model in enumerate(models):
                # Outermost: what is kept is what the loop gets, of whole size, though a cut leaves
                # rows out below.
                undo.callback(run.hook(model, partial(self._answer, key), outermost=True))
            scheduler = getattr(pipeline, "scheduler", None)
            if callable(getattr(scheduler, "step", None)):
                undo.callback(_SchedulerStep(scheduler, self._step).remove)
            self._undo = undo.pop_all()

    def remove(self) -> None:
        """Take the hooks away, and forget what was kept. Idempotent."""
        self._undo.close()
        self._last.clear()

    def _answer(
        self, key: int, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if not self._owns():
            return call(*args, **kwargs)
        kept = key, _rows(args, kwargs)
        if not (self.stopped and kept in self._last):
            self._last[kept] = call(*args, **kwargs)
        return self._last[kept]

    def _step(self, step: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        sample = kwargs.get("sample", args[2] if len(args) > 2 else None)
        if not self._owns():
            return step(*args, **kwargs)
        if not (self.stopped and _STEP in self._last and sample is not None):
            self._last[_STEP] = out = step(*args, **kwargs)
            return out
        out = self._last[_STEP]
        if isinstance(out, Mapping):
            return cast(Any, type(out))(**{**out, "prev_sample": sample})
        return (sample, *out[1:]) if isinstance(out, tuple) else sample


def _rows(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """Return how many rows a model is called with: those of the first tensor with axes, or list."""
    for value in (*args, *kwargs.values()):
        if isinstance(value, list):
            return len(value)
        shape: Any = getattr(value, "shape", ())
        if len(shape) > 1:
            return int(shape[0])
    return 0


class _SchedulerStep:
    """Stand in for the ``step`` of one scheduler object, and not of copies that a loop makes."""

    def __init__(self, scheduler: Any, around: Callable[..., Any]) -> None:
        self._scheduler, self._around = scheduler, around
        # Pipelines look at the signature, to tell what it takes.
        self._step = self.__wrapped__ = scheduler.step
        self._before = vars(scheduler).get("step")
        scheduler.step = self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._around(self._step, args, kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        copied = memo.get(id(self._scheduler), self._scheduler)
        return MethodType(type(copied).step, copied)

    def remove(self) -> None:
        if vars(self._scheduler).get("step") is not self:
            return  # somebody has put another one there, and it may call this one
        if self._before is None:
            del self._scheduler.step
        else:
            self._scheduler.step = self._before


#: What the models of both frameworks call their blocks.
_BLOCKS = (
    *("transformer_blocks", "single_transformer_blocks", "blocks", "layers", "context_refiner"),
    *("down_blocks", "mid_block", "up_blocks", "double_blocks", "single_blocks", "joint_blocks"),
)


class Gates:
    """Stand before every block of a pipeline's denoisers, to raise at the next one that is called.

    Args:
        backend: of the pipeline's framework.
        models: its denoisers, and the models called with these.
        check: called before each block; it may raise.
    """

    def __init__(
        self,
        backend: Backend,
        models: Sequence[Any],
        check: Callable[[], None],
    ) -> None:
        def around(call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            check()
            return call(*args, **kwargs)

        with ExitStack() as undo:
            for model in models:
                for module in (model, *_blocks(model)):
                    try:
                        undo.callback(backend.hook(module, around))
                    except UnsupportedPipelineError:
                        continue  # what cannot be hooked runs on, to the end of its step at most
            self._undo = undo.pop_all()
        if log.isEnabledFor(logging.DEBUG):
            log.debug("hooks put before all blocks of the denoisers, to cancel at the next")

    def remove(self) -> None:
        """Take them away. Idempotent."""
        self._undo.close()
        if log.isEnabledFor(logging.DEBUG):
            log.debug("hooks before all blocks taken away")


def _blocks(model: Any) -> Iterator[Any]:
    for name in _BLOCKS:
        yield from _modules(getattr(model, name, None))


def _modules(found: Any) -> Iterator[Any]:
    """Yield a module that can be called, or those in lists of them. A model's configuration may
    have the same name, and numbers."""
    if isinstance(found, Iterable) and not isinstance(found, str):
        for item in found:
            yield from _modules(item)
    elif callable(found):
        yield found
