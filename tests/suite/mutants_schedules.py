"""Faults in guidance that changes in the course of a run."""

from __future__ import annotations

import copy
from typing import Any

from mutation import MoreKinds, after, instead, mutant, value

import unicb.guidance._scale
from unicb import Step, UnsupportedPipelineError
from unicb.callbacks._cutoff import Cutoff
from unicb.callbacks.guidance_rule import GuidanceRule
from unicb.guidance._guided import RunGuidance
from unicb.guidance._moves import BatchMoves
from unicb.guidance._rule import RuleMoves
from unicb.guidance._scale import PropertyScale, ScaleMoves
from unicb.guidance.rule_step import RuleStep
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


def _disobedient(made: Any) -> Any:
    def broken(self: RuleMoves, u: Any, c: Any, number: int) -> Any:
        made(self, u, c, number)
        return u + (c - u) * self._asked(number)

    return broken


def _never_cut(combine_by: Any) -> Any:
    """Where a hook of the rule's is outside of that of a cut, it sees both halves."""

    def broken(self: RunGuidance, combine: Any, tensors: Any) -> None:
        combine_by(self, combine, tensors)
        self._ruling._hooks._moves._is_cut = lambda: False  # type: ignore[union-attr]

    return broken


def _kept_for_ever() -> Any:
    kept: dict[int, Any] = {}
    return instead(lambda self, rule, make: kept.setdefault(id(rule), make()))


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
        "a rule is asked and not obeyed",
        "the loop combines what the denoiser has answered",
        "rule_of_plain_guidance_is_a_call_with_that_scale rule_is_asked_in_each_step_with_guidance",
        RuleMoves,
        "_made",
        _disobedient,
    ),
    mutant(
        "a rule is asked where guidance is cut",
        "of two predictions that are the same",
        "rule_is_asked_in_each_step_with_guidance",
        RunGuidance,
        "combine_by",
        _never_cut,
        harness=MoreKinds,
        error=UnsupportedPipelineError,
    ),
    mutant(
        "what a rule keeps is kept for ever",
        "the momentum of one run acts in the next",
        "rule_is_asked_in_each_step_with_guidance",
        RuleStep,
        "state",
        _kept_for_ever(),
    ),
    mutant(
        "a rule has the scale of the call",
        "its own is not asked for",
        "rule_of_plain_guidance_is_a_call_with_that_scale",
        GuidanceRule,
        "_combined",
        instead(lambda self, u, c, step: self.combine(u, c, step.guidance_scale, step)),
    ),
    mutant(
        "the loop's own scale is left out of account",
        "as if each loop multiplied by 1",
        "rule_of_plain_guidance_is_a_call_with_that_scale",
        RuleMoves,
        "_well_conditioned",
        instead(lambda self, loops, like: 1.0),
        harness=MoreKinds,
    ),
    mutant(
        "the scale of a rule stays",
        "what makes a loop multiply by 1 is not put back",
        "rule_of_plain_guidance_is_a_call_with_that_scale",
        RuleMoves,
        "remove",
        instead(lambda self: None),
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
