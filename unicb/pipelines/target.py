"""Describe the pipeline to which callbacks are bound, with unicb's facts about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from unicb._states import States
from unicb.backend import Backend
from unicb.errors import UnsupportedPipelineError
from unicb.pipelines.by_hand import Loop
from unicb.pipelines.facts import PipelineFacts, num_timesteps_of
from unicb.pipelines.hookable import check_hookable
from unicb.pipelines.modular import ModularLoops, modular_loops
from unicb.pipelines.scheduled import Stepping, scheduled_loop
from unicb.pipelines.source import CallSource
from unicb.pipelines.stoppable import check_stoppable, models_of, stops_by_flag

if TYPE_CHECKING:
    from unicb.guidance import Guidance
    from unicb.latents.layouts import Layout
    from unicb.run.loop_steps import BlockStep

T = TypeVar("T")


class Target:
    """A target is a pipeline to which callbacks are bound; :meth:`unicb.Callback.on_bind` gets it.

    Properties that take time are computed on first use.

    Attributes:
        pipeline: the pipeline.
        backend: the backend of its framework.
        facts: unicb's facts about its class; None for an unknown class.

    Example:
        >>> class Tell(Callback):
        ...     def on_bind(self, target):
        ...         print(target.name, "on", target.backend.name)
        ...     def on_step_end(self, step): ...
        >>> callbacks = bind(pipe, Tell())
        ToyPipeline on numpy
    """

    def __init__(self, pipeline: Any, backend: Backend, facts: PipelineFacts | None) -> None:
        self.pipeline, self.backend = pipeline, backend
        #: The loops of a modular pipeline; None for any other.
        self.blocks: ModularLoops | None = modular_loops(pipeline)
        self.facts = facts if self.blocks is None else self.blocks.facts(pipeline, facts)
        #: The current step of a modular pipeline.
        self.block_step: BlockStep | None = None
        #: The loop's arguments for ``scheduler.step``, by name, if the scheduler's calls are
        #: watched.
        self.step_arguments: Mapping[str, Any] | None = None
        self._states = States()
        self._hookable: list[int] = []
        #: True if several ranks share the pipeline's runs.
        self.is_shared = False

    def state(self, callback: object, make: Callable[[], T]) -> T:
        """Return the value that ``callback`` keeps for this binding; the first time, it is made by
        ``make()``. (``run.state`` is for values of a single run.)"""
        return self._states.of(callback, make)

    @property
    def name(self) -> str:
        """Return the name of the pipeline's class."""
        return type(self.pipeline).__name__

    @cached_property
    def guidance(self) -> Guidance:
        """Return how classifier-free guidance works on the pipeline, and how to change it."""
        from unicb.guidance import Guidance

        return Guidance(self.pipeline, self.facts, self.offered)

    @property
    def is_to_be_seen(self) -> bool:
        """Return whether a run has to observe how its loop guides."""
        return "guidance" in vars(self) and self.guidance.is_to_be_seen

    @cached_property
    def layout(self) -> Layout:
        """Return the axes of the pipeline's latents, as callbacks get them.

        Raises:
            UnsupportedPipelineError: the latents hold no picture and no video.
        """
        from unicb.latents import layout_of

        return layout_of(self.pipeline, self.facts)

    @property
    def source(self) -> CallSource:
        """Return the source of the pipeline class's ``__call__``."""
        return CallSource.of(type(self.pipeline))

    @property
    def modular(self) -> ModularLoops | None:
        """Return the modular pipeline's loops, if their blocks show the ends of their steps; else
        None."""
        return None if self.blocks is None or self.blocks.inner is not None else self.blocks

    @cached_property
    def scheduled(self) -> Stepping | None:
        """Return the pipeline's loop, if it calls no callback and its scheduler's calls show its
        steps; None if it calls a callback.

        Raises:
            UnsupportedPipelineError: the ends of its steps cannot be noticed in either way.
        """
        if isinstance(self.pipeline, Loop):
            return self.pipeline.stepping
        if self.blocks is not None:
            return self.blocks.inner
        return scheduled_loop(type(self.pipeline))

    @property
    def noticed_by(self) -> Literal["callback", "loop_step", "scheduler"]:
        """Return what shows the ends of its steps: the callback that its loop calls, ``loop_step``
        of its loop blocks, or its scheduler.

        Raises:
            UnsupportedPipelineError: nothing shows them.
        """
        if self.modular is not None:
            return "loop_step"
        return "callback" if self.scheduled is None else "scheduler"

    @property
    def takes_callback(self) -> bool:
        """Return whether the pipeline's loop calls the callback given to the pipeline's call."""
        return self.blocks is None and self.scheduled is None

    @property
    def offered(self) -> tuple[str, ...]:
        """Return the names of the tensors that the pipeline's loop hands over at the end of a
        step."""
        if self.modular is not None:
            return self.modular.offered
        if self.scheduled is not None:
            return ("latents",)
        return tuple(getattr(self.pipeline, "_callback_tensor_inputs", ()))

    def num_timesteps(self, loop_locals: Callable[[list[str]], Mapping[str, Any]]) -> int:
        """Return the number of the running call's timesteps; ``loop_locals`` returns values of the
        loop's local variables."""
        if self.block_step is not None:
            return self.block_step.num_timesteps
        if self.scheduled is not None:
            return self.scheduled.num_timesteps(self.pipeline, loop_locals)
        return num_timesteps_of(self.pipeline)

    @property
    def models(self) -> list[Any]:
        """List the pipeline's denoisers, then the models called with the same rows, such as
        ControlNets. The list is empty if they are not known, or the pipeline has no denoiser."""
        if self.facts is None and self.scheduled is not None:
            found = [getattr(self.pipeline, name, None) for name in self.scheduled.models]
            return [model for model in found if model is not None]
        return models_of(self.pipeline, self.facts)

    def check_changeable(self, part: Any) -> None:
        """Raise UnsupportedPipelineError if a change of ``part``, to its attributes or its call,
        would have no effect in a run, because it is inside a compiled model."""
        models = self.models
        if any(part is model for model in models) or not self.backend.is_built_in(part, models):
            return
        raise UnsupportedPipelineError(
            f"cannot change the {type(part).__name__} in a compiled model of this {self.name}: "
            "the compiler has built it into the graph, and calls of the model would see nothing of "
            "the change; leave the model uncompiled, or leave out the callback that changes it"
        )

    def check_interruptible(self) -> None:
        """Raise UnsupportedPipelineError if a run of the pipeline cannot be ended early."""
        if self.modular is not None:
            return
        models = self.models
        check_stoppable(self.pipeline, models, self.facts)
        if stops_by_flag(self.pipeline):
            return
        if (found := [*map(id, models)]) != self._hookable:  # a run may be under way
            check_hookable(self.backend, models, f"interrupt a run of {self.name}")
            self._hookable = found
