"""Let a callback read and change the guidance of its run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from unicb.checks import number
from unicb.errors import UnsupportedPipelineError
from unicb.ops import Tensor

if TYPE_CHECKING:
    from unicb.guidance.rule_step import Combine
    from unicb.run.run import Run


class GuidanceControls:
    """``GuidanceControls`` is the part of a :class:`unicb.Step` that is about classifier-free
    guidance."""

    __slots__ = ()

    if TYPE_CHECKING:
        run: Run
        _handed: Mapping[str, Tensor]

    @property
    def guidance_scale(self) -> float:
        """Return the pipeline's guidance scale. Assigning changes it from the next step on, to the
        end of the run; afterwards the pipeline has its own again.

        Raises:
            UnsupportedPipelineError: the pipeline has no guidance scale, or (on assignment) its
                loop is known to read a local copy, so that a new value would change nothing.
        """
        try:
            return float(self.run.pipeline.guidance_scale)
        except AttributeError as error:
            raise UnsupportedPipelineError(
                f"{type(self.run.pipeline).__name__} has no guidance_scale"
            ) from error

    @guidance_scale.setter
    def guidance_scale(self, value: float) -> None:
        self.run.guidance.set_scale_attribute(number("guidance_scale", value))

    @property
    def guidance_is_off(self) -> bool:
        """Return whether the pipeline was called without guidance, as far as that can be known by
        now."""
        return self.run.guidance.is_off()

    def cut_guidance(self) -> bool:
        """Leave out the unconditional half of the denoiser's work from the next step on.

        Returns False if it is left out already, or if the pipeline says that its guidance is off.

        Raises:
            UnsupportedPipelineError: the class has no CFG, or how it works is not known.
        """
        return self.run.guidance.cut(self._handed)

    def restore_guidance(self) -> bool:
        """Undo :meth:`cut_guidance`: both halves are computed from the next step on.

        Returns False if nothing was left out.
        """
        return self.run.guidance.restore()

    def set_guidance(self, scale: float) -> None:
        """Have classifier-free guidance of this scale from the next step on, to the end of the run.

        Unlike an assignment to :attr:`guidance_scale`, it also works where the loop keeps a copy
        of its scale: there, what the denoiser predicts without the prompt is moved, so that the
        loop's own arithmetic gives what the other scale would. At a scale at which the pipeline
        would have no guidance (mostly 1 and below), it is cut as by :meth:`cut_guidance`.

        Raises:
            UnsupportedPipelineError: the class has no CFG; how it works, or how its loop combines
                the two halves, is not known; the pipeline was called without guidance.
        """
        self.run.guidance.set(number("scale", scale), self._handed)

    def combine_guidance(self, combine: Combine) -> None:
        """Have ``combine(unconditional, conditional, step)`` make what the loop combines of what
        its denoiser predicts, from the next step on, to the end of the run; not in steps in which
        guidance is cut. ``step`` is a :class:`unicb.RuleStep`.

        The predictions are in float32 where the model's dtype is half of that. The answer has to
        have their shape and dtype.

        Raises:
            UnsupportedPipelineError: the class has no CFG; how it works, or how its loop combines
                the two halves, is not known; the pipeline was called without guidance.
            UnicbError: the run has a rule, or a scale was set by :meth:`set_guidance`.
        """
        self.run.guidance.combine_by(combine, self._handed)
