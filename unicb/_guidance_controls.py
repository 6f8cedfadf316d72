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
        """Return True if the pipeline was called without guidance, as far as is known by this
        step."""
        return self.run.guidance.is_off()

    def cut_guidance(self) -> bool:
        """Leave out the unconditional half of the denoiser's work from the next step on.

        Returns False if that half is left out already, or the pipeline says that guidance is off.

        Raises:
            UnsupportedPipelineError: the class has no classifier-free guidance, or unicb does not
                know how it works there.
        """
        return self.run.guidance.cut(self._handed)

    def restore_guidance(self) -> bool:
        """Undo :meth:`cut_guidance`: from the next step on, both halves are computed again.

        Returns False if nothing was left out.
        """
        return self.run.guidance.restore()

    def set_guidance(self, scale: float) -> None:
        """Set the scale of classifier-free guidance, from the next step on to the end of the run.

        Unlike an assignment to :attr:`guidance_scale`, this also works where the loop keeps a copy
        of its scale: there, the unconditional prediction is changed so that the loop's own
        arithmetic gives the result of the new scale. At a scale at which the pipeline would have no
        guidance (mostly 1 and below), guidance is cut as by :meth:`cut_guidance`.

        Raises:
            UnsupportedPipelineError: the class has no classifier-free guidance; unicb does not know
                how it works there, or how the loop combines the two halves; or the pipeline was
                called without guidance.
        """
        self.run.guidance.set(number("scale", scale), self._handed)

    def combine_guidance(self, combine: Combine) -> None:
        """Let ``combine(unconditional, conditional, step)`` replace the loop's own combination of
        the two predictions, from the next step on to the end of the run, except in steps in which
        guidance is cut. ``step`` is a :class:`unicb.RuleStep`.

        Predictions of a float16 or bfloat16 model are handed over in float32. ``combine`` has to
        return a tensor of their shape and dtype.

        Raises:
            UnsupportedPipelineError: as from :meth:`set_guidance`.
            UnicbError: the run has a rule already, or :meth:`set_guidance` has set a scale.
        """
        self.run.guidance.combine_by(combine, self._handed)
