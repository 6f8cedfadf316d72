"""Check the arguments of ``bind``, and prepare them for a binding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from unicb._mistakes import (
    check_function,
    check_no_pipeline,
    check_pipeline,
    check_written,
    no_callback,
)
from unicb._official import ObjectCallback, PlainCallback, is_guider, names_its_tensors
from unicb.backend import Backend, backend_for
from unicb.callback import Callback, PlainFunction, name_of
from unicb.checks import are_names, one_of, seconds
from unicb.errors import BackendNotFoundError, UnsupportedPipelineError
from unicb.pipelines import PipelineFacts, facts_for
from unicb.pipelines.scheduled import check_scheduler
from unicb.pipelines.target import Target
from unicb.pipelines.wrapped import check_not_wrapped
from unicb.run.asked import Bound
from unicb.run.first_call import check_watchable
from unicb.run.run import Run
from unicb.run.sigint import OnSigint, Sigint, check_sigint

if TYPE_CHECKING:
    from unicb.run.sharing import Agree, Sharing


def bound_to(
    pipeline: Any,
    callbacks: Sequence[Callback | PlainFunction],
    tensor_inputs: Sequence[str] | None,
    on_sigint: OnSigint | None,
    on_over: Callable[[Run], None],
    ranks: AskedRanks | None = None,
) -> tuple[Bound, list[str], Sigint]:
    """Check the pipeline and the callbacks; return them bound, with the names of the tensors to ask
    the loop for, and what Ctrl-C does. Raises what :func:`unicb.bind` lists.

    Args:
        on_over: called with a run once it is over and everything that it changed is put back.
        ranks: the ``group``, ``agree`` and ``timeout`` given to ``bind``; None: no run is shared.
    """
    if ranks is not None:
        ranks.check()
    if on_sigint is not None:
        check_sigint(on_sigint)
    check_pipeline(pipeline)
    target = Target(pipeline, _backend_of(pipeline), facts_for(pipeline))
    if target.backend.rank()[1] > 1:
        from unicb.guidance._engines import check_loop_calls_back

        check_loop_calls_back(target.name, target.models)
    offered = offered_tensors(target)
    chosen = offered if tensor_inputs is None else tensor_names(tensor_inputs)
    adapted = tuple(as_callback(callback, chosen, target.backend) for callback in callbacks)
    needs = [(callback, tuple(callback.needs(target))) for callback in adapted]
    # A mapping's order is its insertion order: this drops duplicates and keeps the order.
    needed = tuple(dict.fromkeys(name for _, names in needs for name in names))
    missing = [name for name in (*needed, *chosen) if name not in offered]
    if missing:
        raise UnsupportedPipelineError(
            f"{target.name} offers no tensor called {missing[0]!r} to callbacks; "
            f"it offers: {', '.join(offered)}"
        )
    refuse_conflicts(adapted)
    facts = target.facts
    # Pipelines that are known to have guidance are known to call a step-end callback, too.
    unguided = facts is None or facts.cfg == "none"
    if unguided and target.takes_callback and target.source.hands_on:
        raise UnsupportedPipelineError(
            f"{target.name} calls no callback itself: it hands it on to a pipeline inside it; "
            "bind that one"
        )
    sharing = None if ranks is None else ranks.sharing(target, adapted)
    target.is_shared = sharing is not None
    for callback in adapted:
        callback.on_bind(target)
    if on_sigint is not None:
        target.check_interruptible()
    if early := acting_early(adapted):
        check_watchable(target, name_of(early[0]))
    hides_bar = any(callback.hides_progress_bar for callback in adapted)
    bound = Bound(target, tuple(needs), early, on_over, set(), hides_bar, sharing)
    sigint: Sigint = "asked" if on_sigint is not None else _offered_sigint(target, adapted)
    return bound, [*with_batch(needed, offered, facts)], sigint


def _offered_sigint(target: Target, callbacks: tuple[Callback, ...]) -> Sigint:
    """Return what Ctrl-C does if ``on_sigint`` was left out: what a callback offers, provided that
    the pipeline can be interrupted."""
    if all(callback.on_sigint is None for callback in callbacks):
        return "no"
    try:
        target.check_interruptible()
    except UnsupportedPipelineError:
        return "no"
    return "offered"


def _backend_of(pipeline: Any) -> Backend:
    try:
        return backend_for(pipeline)
    except BackendNotFoundError as error:
        check_not_wrapped(pipeline, error)
        raise


class AskedRanks(NamedTuple):
    """Hold the arguments of ``bind`` that say which ranks share the runs."""

    group: Any
    agree: Agree
    timeout: float

    def check(self) -> None:
        """Raise TypeError or ValueError if ``agree`` or ``timeout`` is not allowed."""
        one_of("agree", self.agree, ("later", "now"))
        seconds("timeout", self.timeout)

    def sharing(self, target: Target, callbacks: Sequence[Callback]) -> Sharing | None:
        """Return how the runs are shared, or None; raises what :func:`sharing_of` raises."""
        is_auto = isinstance(self.group, str) and self.group == "auto"
        if self.group is None or (is_auto and target.backend.rank()[1] < 2):
            return None
        from unicb.run.sharing import sharing_of

        return sharing_of(target, callbacks, *self)


def offered_tensors(target: Target) -> tuple[str, ...]:
    """Return the names of the tensors that the pipeline hands over at the end of a step.

    Raises:
        UnsupportedPipelineError: the ends of the pipeline's steps cannot be noticed, or the
            pipeline does not say which tensors it offers.
    """
    pipeline = target.pipeline
    if target.scheduled is not None:
        check_scheduler(pipeline, target.scheduled)
    elif target.modular is None and getattr(pipeline, "_callback_tensor_inputs", None) is None:
        raise UnsupportedPipelineError(
            f"{target.name} does not say what it offers to callbacks. If it hands them on to a "
            "pipeline inside it, bind that one: pipe(prompt, **bind(pipe.decoder_pipe, ...))"
        )
    return target.offered


def tensor_names(tensor_inputs: Sequence[str]) -> tuple[str, ...]:
    """Check and return the names of the tensors that the user wants handed to plain functions."""
    if not are_names(tensor_inputs):
        raise TypeError(
            f"tensor_inputs takes a list of names, not {tensor_inputs!r}; "
            'for one tensor write ["latents"]'
        )
    return tuple(tensor_inputs)


def as_callback(callback: Any, tensors: tuple[str, ...], backend: Backend) -> Callback:
    """Return a Callback unchanged; wrap a plain function, which gets these tensors, or a callback
    object or guider of the frameworks."""
    if isinstance(callback, Callback):
        if isinstance(callback.tensors, str):
            raise TypeError(
                f"{type(callback).__name__}.tensors is the string {callback.tensors!r}; "
                f"it must be a tuple of names: ({callback.tensors!r},)"
            )
        check_written(callback)
        return callback
    if isinstance(callback, type):
        raise TypeError(
            f"bind() takes callback objects, and {callback.__name__} is a class: "
            f"write {callback.__name__}(...)"
        )
    if is_guider(callback):
        from unicb._guiders import GuiderRule

        return GuiderRule(callback)
    if not callable(callback):
        raise no_callback(callback)
    check_no_pipeline(callback, backend.owns)
    if names_its_tensors(callback):
        return ObjectCallback(callback)
    check_function(callback)
    return PlainCallback(callback, tensors)


def acting_early(callbacks: tuple[Callback, ...]) -> tuple[Callback, ...]:
    """Return the callbacks that act before the first step: those that override
    ``before_first_step``."""
    plain = Callback.before_first_step
    return tuple(c for c in callbacks if type(c).before_first_step is not plain)


def refuse_conflicts(callbacks: tuple[Callback, ...]) -> None:
    """Raise ValueError if two callbacks own the same thing, or are the same object."""
    owners: dict[str, str] = {}
    for number, callback in enumerate(callbacks):
        for thing in callback.owns:
            name = name_of(callback)
            if thing in owners:
                raise ValueError(
                    f"two callbacks of one binding both decide on {thing}: {owners[thing]} and "
                    f"{name}; keep one of them"
                )
            owners[thing] = name
        if any(callback is other for other in callbacks[:number]):
            raise ValueError(
                f"the same {name_of(callback)} object is among the callbacks twice; it keeps what "
                "it needs of a run once: make two of them, or leave one out"
            )


def with_batch(
    needed: tuple[str, ...], offered: tuple[str, ...], facts: PipelineFacts | None
) -> tuple[str, ...]:
    """Add the tensor whose rows give the run its batch size; to have it handed over costs
    nothing."""
    name = "latents" if facts is None else facts.batch_of
    return needed if name in needed or name not in offered else (*needed, name)
