"""Call the callbacks of a run, in their order, and say what to write where one is not written
right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from unicb._mistakes import check_returned, say_what_to_write
from unicb.callback import Callback, name_of
from unicb.errors import GenerationCancelled
from unicb.step import Step

if TYPE_CHECKING:
    from unicb.run.asked import Bound
    from unicb.run.run import Run


def call_before_first_step(early: Sequence[Callback], step: Step) -> None:
    """Call those that act before the first step. Each that has been called hears of the run's
    end."""
    try:
        for callback in early:
            step.run.ending.callbacks.callback(callback.on_run_end, step.run)
            step._current = callback, ()
            callback.before_first_step(step)
    except AttributeError as error:
        say_what_to_write(error, step._callback_name, step)
        raise


def call_at_start(bound: Bound, run: Run) -> None:
    """Call each as the run starts, at the end of its first step. They hear of the run's end."""
    for callback, _ in bound.callbacks:
        if not any(callback is early for early in bound.early):  # which hear of it already
            run.ending.callbacks.callback(callback.on_run_end, run)
        callback.on_run_start(run)


def call_at_step_end(callbacks: Sequence[tuple[Callback, Sequence[str]]], step: Step) -> None:
    """Call each at the end of a step, which lets it have the tensors that it has declared."""
    try:
        for current in callbacks:
            step._current = current
            # Some return what they mean to write.
            returned: object = current[0].on_step_end(step)
            if returned is not None:
                check_returned(name_of(current[0]), returned, step.run.is_tensor)
    except AttributeError as error:
        say_what_to_write(error, step._callback_name, step)
        raise
    except GenerationCancelled:
        step.run.record.stopped(step._callback_name, step.index)
        raise
