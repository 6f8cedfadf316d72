"""Bind a loop that the user wrote by hand: its parts are bound in place of a pipeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import CodeType
from typing import Any, Literal

from unicb.checks import whole_number
from unicb.ops import TensorOps
from unicb.pipelines._around_step import LoopLocals
from unicb.pipelines._called import DENOISER
from unicb.pipelines._stepping import OutputPart
from unicb.pipelines.facts import Part, PipelineFacts, usual_unbatched

_NOT_SAID = (
    "is a loop of one's own, and how it guides was not said: write Loop(..., guidance='batch') for "
    "one call of the denoiser with both halves, or guidance='calls' for a call each"
)


class Loop:
    """``Loop`` holds the parts of a loop of your own; :func:`unicb.bind` takes it in place of a
    pipeline.

    Example:
        >>> timer = StepTimer()
        >>> loop = Loop(unet=unet, scheduler=scheduler, num_timesteps=4)
        >>> with bind(loop, timer) as callbacks:
        ...     for t in scheduler.timesteps:
        ...         noise = unet(latents, t, encoder_hidden_states=embeds, return_dict=False)[0]
        ...         latents = scheduler.step(noise, t, latents, return_dict=False)[0]
        >>> callbacks.state, len(timer.times.seconds)  # of each step but the first
        ('finished', 3)

    A step ends when ``scheduler.step`` returns; its result has what callbacks have written.

    Args:
        scheduler: the scheduler whose ``step`` the loop calls once in each step.
        guidance: how the loop computes both halves of classifier-free guidance: "batch": in one
            call of the denoiser; "calls": in several calls a step. unicb checks this in the first
            step with guidance, before it changes guidance. None: there is no guidance, or it must
            not be changed.
        order: which part each block of rows, or each call, computes; see
            :class:`unicb.PipelineFacts`. Left out: the unconditional block first in a batch, the
            conditional call first in calls.
        num_timesteps: number of steps that the loop takes. Left out: the length of what its ``for``
            iterates over, found through its code.
        parts: the models that the loop calls, under diffusers' names for them: at least a denoiser
            (``unet``, ``transformer``, ``prior``, …), and a ``vae`` if a callback uses it.

    Raises:
        TypeError: there is no denoiser among ``parts``, or the scheduler has no ``step``.
        ValueError: ``guidance`` is none of these words, or ``num_timesteps`` is less than 1.
    """

    def __init__(
        self,
        *,
        scheduler: Any,
        guidance: Literal["batch", "calls"] | None = None,
        order: Sequence[Part] = (),
        num_timesteps: int | None = None,
        **parts: Any,
    ) -> None:
        if not callable(getattr(scheduler, "step", None)):
            raise TypeError(f"Loop needs a scheduler with a step, not a {type(scheduler).__name__}")
        denoisers = tuple(name for name in parts if DENOISER.search(name))
        if not denoisers:
            raise TypeError(
                "Loop needs the model that its loop calls, by a name such as unet= or "
                f"transformer=; it was given {', '.join(parts) or 'none'}"
            )
        if guidance not in ("batch", "calls", None):
            raise ValueError(f"guidance is 'batch', 'calls' or None, not {guidance!r}")
        vars(self).update(parts)
        self.scheduler = scheduler
        #: The number of steps given by the user; None if left out.
        self.said: int | None = None
        if num_timesteps is not None:
            self.said = whole_number("num_timesteps", num_timesteps)
        #: The number of steps of the current pass.
        self.num_timesteps: int | None = self.said
        self._facts = PipelineFacts(
            "what Loop(...) was told",
            denoisers,
            tuple(name for name in parts if "controlnet" in name),
            cfg=guidance or "none",
            why_none="" if guidance else _NOT_SAID,
            order=tuple(order),
            unbatched=usual_unbatched(),
            guidance_scale="local",
            combination="other",
            verify=True,
        )

    @property
    def _unicb_framework_of(self) -> Any:
        """Return the first denoiser, whose framework is the loop's."""
        return getattr(self, self._facts.denoisers[0])

    @property
    def _unicb_facts_of_its_own(self) -> PipelineFacts:
        return self._facts

    @property
    def stepping(self) -> LoopByHand:
        """Return how unicb notices the loop's steps."""
        return LoopByHand(self._facts.denoisers)


@dataclass(frozen=True)
class LoopByHand:
    """``LoopByHand`` describes a user's own loop, as :class:`ScheduledLoop` describes a class's
    loop.

    Attributes:
        models: names of the models that the loop calls.
        code: None: the loop may run in any code.
        latents: "latents", the usual name of the local variable with the latents.
        keeps_scaled: False: see :class:`ScheduledLoop`.
        around: None: whatever else the loop does is not known.
    """

    models: tuple[str, ...]
    code: CodeType | None = None
    latents: str = "latents"
    keeps_scaled: bool = False
    around: None = None

    def part_at(self, line: int, out: Any) -> OutputPart:
        """Return which part of the scheduler's output the latents are."""
        if isinstance(out, tuple):
            return 0
        return "prev_sample" if isinstance(out, Mapping) or hasattr(out, "prev_sample") else None

    def own_rows(self, x: Any, loop_locals: LoopLocals) -> int | None:
        """Return None: the loop steps each row of its latents once."""
        return None

    def own(self, stepped: Any, loop_locals: LoopLocals) -> Any:
        """Return ``stepped``: as far as is known, the loop steps its latents."""
        return stepped

    def as_stepped(self, own: Any, like: Any, ops: TensorOps, loop_locals: LoopLocals) -> Any:
        """Return ``own``, as for :meth:`own`."""
        return own

    def num_timesteps(self, pipeline: Any, loop_locals: LoopLocals) -> int:
        """Return the number of steps of the loop, as observed or as given by the user."""
        return int(pipeline.num_timesteps)
