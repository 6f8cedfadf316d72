"""Define unicb's errors, a tree of classes.

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
    """``UnicbError`` is the base class of unicb's own errors.

    Example:
        >>> try:
        ...     bind("a path is no pipeline")
        ... except UnicbError as error:
        ...     print(type(error).__name__)
        BackendNotFoundError
    """


class BackendNotFoundError(UnicbError):
    """No installed backend has the name asked for, or none owns the object handed to ``bind``.

    Example:
        >>> try:
        ...     bind("a path is no pipeline", CFGCutoff(0.4))
        ... except BackendNotFoundError as error:
        ...     print("bind() takes a pipeline object" in str(error))
        True
    """


class BackendLoadError(UnicbError):
    """A backend that was named or needed failed to load; the cause is chained to this error.

    Example:
        >>> from unicb.backend import get_backend
        >>> try:
        ...     print("numpy" in get_backend("numpy").versions())
        ... except BackendLoadError as error:
        ...     print("to install:", error)
        True
    """


class UnsupportedPipelineError(UnicbError):
    """The pipeline cannot do what was asked of it; the message says what, and what it offers.

    Example:
        >>> class Wants(Callback):
        ...     tensors = ("depth",)
        ...     def on_step_end(self, step): ...
        >>> try:
        ...     bind(pipe, Wants())
        ... except UnsupportedPipelineError as error:
        ...     print(str(error).partition(";")[0])
        ToyPipeline offers no tensor called 'depth' to callbacks
    """


class PipelineBusyError(UnicbError):
    """The pipeline object, or a scheduler object that it shares with another pipeline, is in use by
    a run that has not ended; the message says which, and how to get a separate pipeline.

    Example:
        >>> def again(pipeline, step_index, timestep, callback_kwargs):
        ...     bind(pipeline)("a ring")  # while its own run has not ended
        >>> try:
        ...     bind(pipe, again)("a red star")
        ... except PipelineBusyError:
        ...     print("wait for its end, or take sibling(pipe)")
        wait for its end, or take sibling(pipe)
    """


class RankError(UnicbError):
    """The ranks that share a run cannot go on together: a callback of another rank failed, a rank
    ended or did not answer in time, or their calls or callbacks differ; the message says which.

    Example:
        >>> isinstance(RankError("rank 1 has failed"), UnicbError)  # as others raise it
        True
    """


class GenerationCancelled(UnicbError):
    """A run was ended by ``Binding.cancel()``; nothing was decoded.

    Attributes:
        step: index of the last finished step, from 0; -1 if no step was finished.
        timestep: the scheduler's timestep of that step; None if no step was finished.
        latents: a host copy of the latents after that step (``numpy.ndarray``, bfloat16 widened to
            float32); None if the pipeline offers no latents.

    Example:
        >>> def discard(pipeline, step_index, timestep, callback_kwargs):
        ...     callbacks.cancel()
        >>> callbacks = bind(pipe, discard)
        >>> try:
        ...     callbacks("a red star")
        ... except GenerationCancelled as cancelled:
        ...     print(cancelled.step, cancelled.latents.shape)
        0 (1, 4, 8, 8)
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
        """Return the one line that a notebook shows in place of a traceback."""
        return [f"{type(self).__name__}: {self}"]


class LatentsNotFiniteError(UnicbError, ArithmeticError):
    """The latents contain NaN or infinities; the message says at which step, how many, and a
    probable cause.

    Attributes:
        step: index of the step after which they were found, from 0.
        share: the share of the values that are not finite, above 0 and up to 1.

    Example:
        >>> def spoil(pipeline, step_index, timestep, callback_kwargs):
        ...     if step_index == 3:
        ...         return {"latents": callback_kwargs["latents"] * float("nan")}
        >>> try:
        ...     bind(pipe, spoil, NaNGuard())("a red star")
        ... except LatentsNotFiniteError as error:
        ...     print(error.step, error.share)
        3 1.0
    """

    def __init__(self, message: str, step: int, share: float) -> None:
        super().__init__(message)
        self.step, self.share = step, share

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.step, self.share)
