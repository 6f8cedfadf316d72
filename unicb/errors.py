"""Name everything that can go wrong, as a tree.

    UnicbError
    ├── BackendNotFoundError        no backend of that name, or none for that object
    ├── BackendLoadError            the backend is there, its framework is not (or is broken)
    ├── UnsupportedPipelineError    the pipeline cannot do what a callback asks
    ├── PipelineBusyError           the pipeline, or its scheduler, is in use by another run
    ├── RankError                   the ranks that share a run cannot go on together
    ├── GenerationCancelled         a run was ended by ``Binding.cancel()``
    └── LatentsNotFiniteError       a ``NaNGuard`` found NaN or infinities (an ArithmeticError, too)

Arguments that are wrong in themselves (a ratio of 1.5, a string where a callback belongs) raise
the usual ``ValueError`` and ``TypeError``. Misuse of a binding raises ``UnicbError`` itself.
"""

from __future__ import annotations

from typing import Any


class UnicbError(Exception):
    """``UnicbError`` is the base of everything that unicb raises on its own account."""


class BackendNotFoundError(UnicbError):
    """No installed backend has the name asked for, or none owns the object handed to ``bind``."""


class BackendLoadError(UnicbError):
    """A backend that was named or needed failed to load; the cause is chained to this error."""


class UnsupportedPipelineError(UnicbError):
    """The pipeline cannot do what was asked of it; the message says what, and what it offers."""


class PipelineBusyError(UnicbError):
    """The pipeline object, or a scheduler object that it shares with another pipeline, is in use by
    a run that has not ended; the message says which, and how to get a pipeline of its own."""


class RankError(UnicbError):
    """The ranks that share a run cannot go on together: a callback of another rank failed, a rank
    is gone or did not answer in time, or they do not do the same; the message says which."""


class GenerationCancelled(UnicbError):
    """A run was ended by ``Binding.cancel()``; nothing was decoded.

    Attributes:
        step: index of the last step that was finished, from 0; -1 if none was.
        timestep: the scheduler's timestep of that step; None if there was none.
        latents: host copy of the latents after that step (``numpy.ndarray``, bfloat16 widened to
            float32), or None where the pipeline offers no latents.
    """

    def __init__(self, step: int, timestep: float | None, latents: Any = None) -> None:
        where = "before the end of its first step"
        if timestep is not None:
            where = f"after step {step} (timestep {timestep:g})"
        super().__init__(f"generation was cancelled {where}")
        self.step = step
        self.timestep = timestep
        self.latents = latents

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.step, self.timestep, self.latents)

    def _render_traceback_(self) -> list[str]:
        """Return the one line that a notebook shows: who has asked for it needs no traceback."""
        return [f"{type(self).__name__}: {self}"]


class LatentsNotFiniteError(UnicbError, ArithmeticError):
    """The latents have NaN or infinities in them; the message says when, how many, and probably
    why.

    Attributes:
        step: index of the step after which they were found, from 0.
        share: of the values, how many are not finite; above 0, up to 1.
    """

    def __init__(self, message: str, step: int, share: float) -> None:
        super().__init__(message)
        self.step, self.share = step, share

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.step, self.share)
