"""Stop a run early."""

from __future__ import annotations

from typing import Any

from unicb.callback import Callback
from unicb.callbacks._arguments import step_index
from unicb.pipelines import PipelineFacts, require_interrupt_flag
from unicb.step import Step


class Interrupt(Callback):
    """Stop after a step; the pipeline decodes the latents of that step.

    Args:
        step: index of the last step to run, from 0. One at or beyond the last changes nothing.

    Raises:
        TypeError, ValueError: ``step`` is no index.
        UnsupportedPipelineError: from ``bind``, for a pipeline without an interrupt flag.
    """

    def __init__(self, step: int) -> None:
        self._step = step_index("step", step)

    def on_bind(self, pipeline: Any, facts: PipelineFacts | None) -> None:
        require_interrupt_flag(pipeline)

    def on_step_end(self, step: Step) -> None:
        if step.index >= self._step:
            step.interrupt()
