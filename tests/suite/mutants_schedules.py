"""Faults in guidance that changes in the course of a run."""

from __future__ import annotations

import copy
from typing import Any

from mutation import MoreKinds, after, instead, mutant, value

import unicb.guidance._scale
from unicb import Step, UnsupportedPipelineError
from unicb.callbacks._cutoff import Cutoff
from unicb.guidance._guided import RunGuidance
from unicb.guidance._moves import BatchMoves
from unicb.guidance._scale import PropertyScale, ScaleMoves
from unicb.run.first_call import FirstCalls
from unicb.run.model_hooks import Hooked
from unicb.run.run import Run


def _next_call(on_call: Any) -> Any:
    """What is hooked in the first call answers from the second on."""

    def broken(self: Hooked, call: Any, args: Any, kwargs: Any) -> Any:
        hooked = copy.copy(self)
        for act in self.before:
            act()
        hooked.before = ()
        return on_call(hooked, call, args, kwargs)

    return broken


def _earlier(cutoff: int, self: Cutoff, num_timesteps: int) -> int:
    return cutoff - (self._owner == "GuidanceInterval")


SCHEDULES = (
    mutant(
        "guidance does not come back",
        "what is cut stays cut",
        "interval_is_exact",
        RunGuidance,
        "restore",
        instead(lambda self: False),
    ),
    mutant(
        "the first step is as the pipeline was called",
        "nobody acts before its end",
        "interval_is_exact constant_schedule_is_a_call_with_that_scale acts_before_the_first_step",
        Run,
        "before_first_step",
        instead(lambda self: ()),
    ),
    mutant(
        "the first call is not answered",
        "a hook that is put during a call waits for the next",
        "interval_is_exact",
        Hooked,
        "__call__",
        _next_call,
        error=UnsupportedPipelineError,
    ),
    mutant(
        "an interval ends before its stop",
        "the last step is not part of it",
        "interval_is_exact interval_from_the_start_is_the_cutoff",
        Cutoff,
        "_step",
        after(_earlier),
    ),
    mutant(
        "a copy of the scale counts",
        "predictions are not moved",
        "constant_schedule_is_a_call_with_that_scale",
        ScaleMoves,
        "factor",
        instead(lambda self: 1.0),
        harness=MoreKinds,
    ),
    mutant(
        "predictions are moved too far",
        "by the ratio of the scales",
        "constant_schedule_is_a_call_with_that_scale",
        ScaleMoves,
        "factor",
        after(lambda factor, self: (4.0 * factor + 1.0) / 5.0),
        harness=MoreKinds,
    ),
    mutant(
        "the conditional part is moved",
        "and the unconditional one stays",
        "constant_schedule_is_a_call_with_that_scale",
        unicb.guidance._scale,
        "_moved",
        after(lambda moved, factor, unconditional, conditional: conditional),
        harness=MoreKinds,
    ),
    mutant(
        "the scale is not set",
        "a schedule changes nothing",
        "constant_schedule_is_a_call_with_that_scale schedule_changes_between_two_steps",
        PropertyScale,
        "set",
        instead(lambda self, scale: None),
    ),
    mutant(
        "no scale switches guidance off",
        "a step without guidance is computed with both halves",
        "constant_schedule_is_a_call_with_that_scale",
        PropertyScale,
        "is_off",
        instead(lambda self, scale: False),
        error=ValueError,
    ),
    mutant(
        "a step has the next one's value",
        "the schedule is asked for the step's end",
        "schedule_changes_between_two_steps",
        Step,
        "progress",
        value(lambda step, _: min(1.0, (step.index + 2) / step.num_timesteps)),
    ),
    mutant(
        "the scheduled scale stays",
        "the pipeline keeps the last one",
        "guidance_that_changes_leaves_nothing_behind",
        PropertyScale,
        "remove",
        instead(lambda self: None),
    ),
    mutant(
        "hooks that move predictions stay",
        "nobody takes them away",
        "guidance_that_changes_leaves_nothing_behind",
        BatchMoves,
        "remove",
        instead(lambda self: None),
        harness=MoreKinds,
    ),
    mutant(
        "the first call is watched for ever",
        "the hooks stay when the call is over",
        "acts_before_the_first_step guidance_that_changes_leaves_nothing_behind",
        FirstCalls,
        "remove",
        instead(lambda self: None),
    ),
)
