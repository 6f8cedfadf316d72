"""The first call of a model in a pipeline's loop: where a run can begin before its first step ends.

A pipeline calls its callbacks at the end of steps only. But its loop cannot get through the first
step without its denoiser, and the frame that calls it was given our callback.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, TypeAlias

from unicb.backend import Around, Backend
from unicb.errors import UnsupportedPipelineError
from unicb.pipelines.stoppable import models_of
from unicb.pipelines.target import Target

#: Hooks that were put on models: the model, and what answers its calls.
Hooked: TypeAlias = Sequence[tuple[Any, Around]]


class NotingHooks:
    """A backend that notes the hooks that are put through it, until they are taken away again.

    A hook does not answer a call that is under way when it is put. Who has it put can.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.hooked: list[tuple[Any, Around]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def hook(self, module: Any, around: Around) -> Callable[[], None]:
        noted = (module, around)
        remove = self._backend.hook(module, around)
        self.hooked.append(noted)

        def forget() -> None:
            self.hooked[:] = [other for other in self.hooked if other is not noted]
            remove()

        return forget


class FirstCalls:
    """Watches a pipeline's models for the first call in a loop, until removed.

    Args:
        backend: of the pipeline's framework.
        models: the pipeline's.
        begin: a bound method, not kept alive. It is called before each call of a model, and
            returns the hooks that it has put on the models.
    """

    def __init__(
        self, backend: Backend, models: Sequence[Any], begin: Callable[[], Hooked]
    ) -> None:
        self._begin = weakref.WeakMethod(begin)
        with ExitStack() as undo:
            for model in models:
                undo.callback(backend.hook(model, partial(self._around, model)))
            self._undo = undo.pop_all()

    def remove(self) -> None:
        """Watch no longer. Idempotent."""
        self._undo.close()

    def _around(
        self, model: Any, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        begin = self._begin()
        for hooked, around in () if begin is None else begin():
            if hooked is model:
                call = partial(_through, around, call)
        return call(*args, **kwargs)


def _through(around: Around, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return around(call, args, kwargs)


def models_to_watch(target: Target, owner: str) -> list[Any]:
    """The models whose first call begins a run; ``owner``: who needs that, for messages.

    Raises:
        UnsupportedPipelineError: they are not known.
    """
    try:
        models = target.models or models_of(target.pipeline, target.guidance.facts)
    except UnsupportedPipelineError as error:
        raise _unknown(target, owner) from error
    if not models:
        raise _unknown(target, owner)
    return models


def _unknown(target: Target, owner: str) -> UnsupportedPipelineError:
    return UnsupportedPipelineError(
        f"{owner} acts before the first step, when {target.name} calls its denoiser, and which of "
        "its models that is is not known; `unicb_facts` on the class says it (see "
        "unicb.PipelineFacts)"
    )
