"""Stop a loop: by its interrupt flag, or by giving it nothing to compute.

Most loops read ``pipeline.interrupt`` and skip the remaining steps. The others run on; so their
models return their last outputs without computing, the scheduler leaves the latents unchanged, and
the loop runs to its end and decodes the latents of the step after which it was stopped.
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
    """Record the models' outputs; once :attr:`stopped` is set, make the rest of the loop compute
    nothing.

    The last output of each model is kept for each number of rows, because loops may leave guidance
    out in some steps; likewise the last output of the scheduler's step. A model without a recorded
    output at the time of the stop (any model, after the first step) is called once more.

    Args:
        pipeline: the pipeline of the loop.
        models: the models that the loop calls.
        run: the run whose calls are recorded and answered; other calls pass.
    """

    def __init__(self, pipeline: Any, models: Sequence[Any], run: Run) -> None:
        self.stopped = False
        self._owns = run.owns_current_call
        self._last: dict[tuple[int, int], Any] = {}
        with ExitStack() as undo:
            for key, model in enumerate(models):
                # Outermost: the recorded output has all rows, as the loop gets it, even if a cut
                # inside leaves rows out.
                undo.callback(run.hook(model, partial(self._answer, key), outermost=True))
            scheduler = getattr(pipeline, "scheduler", None)
            if callable(getattr(scheduler, "step", None)):
                undo.callback(_SchedulerStep(scheduler, self._step).remove)
            self._undo = undo.pop_all()

    def remove(self) -> None:
        """Remove the hooks, and forget all recorded outputs. Idempotent."""
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
    """Return how many rows a model is called with: the length of its first argument that is a list
    or a tensor with axes."""
    for value in (*args, *kwargs.values()):
        if isinstance(value, list):
            return len(value)
        shape: Any = getattr(value, "shape", ())
        if len(shape) > 1:
            return int(shape[0])
    return 0


class _SchedulerStep:
    """Replace the ``step`` of one scheduler object, but not of copies that a loop makes."""

    def __init__(self, scheduler: Any, around: Callable[..., Any]) -> None:
        self._scheduler, self._around = scheduler, around
        # Pipelines inspect the signature to see what the step takes.
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
            return  # somebody has replaced this one since, and may call it
        if self._before is None:
            del self._scheduler.step
        else:
            self._scheduler.step = self._before


#: Names of attributes with a model's blocks, in both frameworks.
_BLOCKS = (
    *("transformer_blocks", "single_transformer_blocks", "blocks", "layers", "context_refiner"),
    *("down_blocks", "mid_block", "up_blocks", "double_blocks", "single_blocks", "joint_blocks"),
)


class Gates:
    """Hook every block of a pipeline's denoisers, to raise when the next block is called.

    Args:
        backend: the backend of the pipeline's framework.
        models: the denoisers, and the models called along with them.
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
                        continue  # a block that cannot be hooked runs on, at most to the step's end
            self._undo = undo.pop_all()
        if log.isEnabledFor(logging.DEBUG):
            log.debug("hooks put before all blocks of the denoisers, to cancel at the next")

    def remove(self) -> None:
        """Remove the hooks. Idempotent."""
        self._undo.close()
        if log.isEnabledFor(logging.DEBUG):
            log.debug("hooks before all blocks taken away")


def _blocks(model: Any) -> Iterator[Any]:
    for name in _BLOCKS:
        yield from _modules(getattr(model, name, None))


def _modules(found: Any) -> Iterator[Any]:
    """Yield a callable module, or the modules in a list. An attribute of this name may also be a
    number of the model's configuration."""
    if isinstance(found, Iterable) and not isinstance(found, str):
        for item in found:
            yield from _modules(item)
    elif callable(found):
        yield found
