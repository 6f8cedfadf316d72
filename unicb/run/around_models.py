"""Have a callback answer the calls that a run makes of its models."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from unicb.backend import Around
from unicb.errors import UnsupportedPipelineError
from unicb.pipelines.hookable import check_hookable
from unicb.run.first_call import models_to_watch

if TYPE_CHECKING:
    from unicb.run.asked import AskedRun

#: Called in place of a model, with the model, its own call, its arguments, its keywords.
AroundModel: TypeAlias = Callable[[Any, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


def answer_models(run: AskedRun, around: AroundModel) -> None:
    """Have ``around`` answer the run's own calls of all its models, to its end.

    Raises:
        UnsupportedPipelineError: which models the pipeline calls is not known, or one of them
            cannot be hooked.
    """
    name = run.target.name
    try:
        models = models_to_watch(run.target, "around_models")
    except UnsupportedPipelineError as error:
        raise UnsupportedPipelineError(
            f"cannot answer for the models of {name}: which of them its loop calls is not "
            "known; `unicb_facts` on the class says it (see unicb.PipelineFacts)"
        ) from error
    check_hookable(run.target.backend, models, f"answer for the models of {name}")
    for model in models:
        run.on_finish(run.hook(model, _own_calls(run, model, around)))


def _own_calls(run: AskedRun, model: Any, around: AroundModel) -> Around:
    def answer(call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if run.owns_current_call():
            return around(model, call, args, kwargs)
        return call(*args, **kwargs)

    return answer
