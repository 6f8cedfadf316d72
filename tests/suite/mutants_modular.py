"""Faults where a loop block ends a step, and guidance is a guider's."""

from __future__ import annotations

from typing import Any

from mutation import instead, mutant

from unicb.guidance import _guider
from unicb.guidance._guider import GuiderScale
from unicb.run import loop_steps
from unicb.run.call import Call
from unicb.run.loop_steps import LoopStepSource


def _misses_one(act: Any) -> Any:
    """The third step is nobody's."""

    def acted(what: Any, *args: Any) -> Any:
        return {} if isinstance(what, Call) and args[1] == 2 else act(what, *args)

    return acted


def _one_more(begun: Any) -> Any:
    def counted(self: LoopStepSource, *args: Any) -> Any:
        step = begun(self, *args)
        step.num_timesteps += 1
        return step

    return counted


def _stays(stop: Any) -> Any:
    def stopped(self: LoopStepSource, failed: bool) -> None:
        self._holds.clear()
        stop(self, failed)

    return stopped


MODULAR = (
    mutant(
        "loop block's source misses a step",
        "the third step is not told",
        "modular_tells_every_step",
        loop_steps,
        "or_through_blocks",
        _misses_one,
    ),
    mutant(
        "loop block's source counts too many steps",
        "one more than there are",
        "modular_tells_every_step",
        LoopStepSource,
        "_begin",
        _one_more,
    ),
    mutant(
        "loop block's source loses edits",
        "the state keeps what the step has made",
        "modular_goes_on_with_an_edit",
        loop_steps,
        "_write",
        instead(lambda state, name, before, value: None),
    ),
    mutant(
        "loop block's source stays on the block",
        "what it holds is not released",
        "modular_is_left_as_it_was",
        LoopStepSource,
        "stop",
        _stays,
    ),
    mutant(
        "guider is not cut",
        "it is taken for one that does not guide",
        "modular_guidance_is_the_guiders",
        _guider,
        "way_of",
        instead(lambda models, guider: None),
    ),
    mutant(
        "guider keeps its scale",
        "a schedule sets nothing",
        "modular_guidance_is_the_guiders",
        GuiderScale,
        "set",
        instead(lambda self, scale: None),
    ),
    mutant(
        "stopped loop block goes on",
        "steps after a stop are computed",
        "modular_stops",
        Call,
        "runs_out",
        instead(property(lambda self: False)),
    ),
)
