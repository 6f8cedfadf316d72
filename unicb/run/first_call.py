"""Notice the first call of a model in a pipeline's loop, so that a run can begin before its first
step ends.

A pipeline calls its callbacks only at the end of steps. But its loop calls its denoiser in the
first step, from a frame that was given our callback.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from unicb.errors import UnsupportedPipelineError
from unicb.pipelines.hookable import check_hookable
from unicb.pipelines.stoppable import models_of
from unicb.pipelines.target import Target
from unicb.run.model_hooks import ModelHooks


class FirstCalls:
    """Watch a pipeline's models for the first call in a loop, until removed.

    Args:
        hooks: the call's hooks on the pipeline's models.
        models: the models to watch.
        begin: a bound method, held weakly, that is called before each call of a model.
    """

    def __init__(self, hooks: ModelHooks, models: Sequence[Any], begin: Callable[[], None]) -> None:
        self._begin = weakref.WeakMethod(begin)
        with ExitStack() as undo:
            for model in models:
                undo.callback(hooks.before(model, self._before))
            self._undo = undo.pop_all()

    def remove(self) -> None:
        """Stop watching. Idempotent."""
        self._undo.close()

    def _before(self) -> None:
        if (begin := self._begin()) is not None:
            begin()


def models_to_watch(target: Target, owner: str) -> list[Any]:
    """Return the models whose first call begins a run. ``owner`` says in messages who needs that.

    Raises:
        UnsupportedPipelineError: the pipeline's models are not known.
    """
    try:
        models = target.models or models_of(target.pipeline, target.guidance.facts)
    except UnsupportedPipelineError as error:
        raise _unknown(target, owner) from error
    if not models:
        raise _unknown(target, owner)
    return models


def check_watchable(target: Target, owner: str) -> None:
    """Raise UnsupportedPipelineError if those models are not known, or cannot be hooked."""
    if target.modular is not None:
        return
    aim = f"act before the first step of {target.name}, as {owner} does"
    check_hookable(target.backend, models_to_watch(target, owner), aim)


def _unknown(target: Target, owner: str) -> UnsupportedPipelineError:
    return UnsupportedPipelineError(
        f"{owner} acts before the first step, when {target.name} calls its denoiser, and which of "
        "its models that is is not known; `unicb_facts` on the class says it (see "
        "unicb.PipelineFacts)"
    )
