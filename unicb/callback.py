"""Define the class to derive callbacks from, and the adapter for plain functions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from unicb._described import arguments
from unicb._mistakes import most_like
from unicb._step_tensors import check_replacement
from unicb.ops import Tensor
from unicb.step import Step

if TYPE_CHECKING:
    from unicb.pipelines.target import Target
    from unicb.run.run import Run
    from unicb.run.sigint import OnSigint

#: The frameworks' own signature: (pipeline, step index, timestep, tensors) -> tensors or None.
PlainFunction: TypeAlias = Callable[[Any, int, Any, dict[str, Tensor]], dict[str, Tensor] | None]


class Callback(ABC):
    """A callback does something at the end of every denoising step, on any framework.

    Declare in ``tensors`` the names of the tensors to read or write, and override
    :meth:`on_step_end`. The other methods are no-ops to override where needed. What it keeps of a
    run is in ``run.state(self, make)``: so one object may serve several runs at once, and can be
    pickled.

    Example:
        >>> class ClampLatents(Callback):
        ...     tensors = ("latents",)
        ...     def on_step_end(self, step):
        ...         step["latents"] = step.ops.clamp(step["latents"], -4.0, 4.0)
        >>> image = bind(pipe, ClampLatents())("a red star")[0]
    """

    #: Names of tensors, as the pipeline offers them in ``_callback_tensor_inputs``.
    tensors: Sequence[str] = ()

    #: What no other callback of the same binding may own, such as ``"guidance"``.
    owns: Sequence[str] = ()

    #: Whether the pipeline's own progress bar is not shown in calls with this callback: it has
    #: one of its own.
    hides_progress_bar: bool = False

    #: ``"interrupt"``: what the first Ctrl-C of a run does, if ``bind`` is not told otherwise, the
    #: pipeline can be interrupted, and it is called in the main thread.
    on_sigint: OnSigint | None = None

    if not TYPE_CHECKING:  # to which it would say that a callback takes any arguments

        def __new__(cls, *args: Any, **kwargs: Any) -> Self:
            """Note what it was made with, in a line, for its ``repr``."""
            if (args or kwargs) and cls.__init__ is object.__init__:
                raise TypeError(f"{cls.__name__}() takes no arguments")
            made = super().__new__(cls)
            object.__setattr__(made, "_given", arguments(args, kwargs))
            return made

    def __repr__(self) -> str:
        return f"{type(self).__name__}({getattr(self, '_given', '')})"

    @abstractmethod
    def on_step_end(self, step: Step) -> None:
        """Act at the end of every step. An exception ends the run and reaches the caller."""

    def needs(self, target: Target) -> Sequence[str]:
        """Return the names of the tensors that the callback reads or writes on this pipeline;
        ``tensors``, where that does not depend on the pipeline. Called once by ``bind``."""
        return self.tensors

    def on_bind(self, target: Target) -> None:  # noqa: B027
        """Prepare for a pipeline; raise here if the callback cannot work on it. ``bind`` calls this
        once."""

    def before_first_step(self, step: Step) -> None:  # noqa: B027
        """Act before the first step of a run, as soon as the pipeline's loop calls its denoiser.

        ``step`` stands for the end of the step before the first: its index is -1, it has no
        timestep and no tensors, and what its methods do to guidance holds from the first step on.

        Only callbacks that override this are called, and only for them the models are watched
        until then; ``bind`` refuses pipelines whose models are not known. The binding has to be
        called, as in ``callbacks(prompt)``, or unpacked in the call, as in ``pipe(prompt,
        **callbacks)``. An exception ends the run and reaches the caller.
        """

    def on_run_start(self, run: Run) -> None:  # noqa: B027
        """Prepare for a run, at the end of its first step, before :meth:`on_step_end`."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Raise TypeError: a callback is no function for a pipeline to call. A subclass may be."""
        name = type(self).__name__
        raise TypeError(
            f"a {name} is no function that a pipeline can call at the end of a step: write "
            f"callbacks = bind(pipe, {name}(...)), and callbacks(prompt)"
        )

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            cls.__init__ = _naming_arguments(cls.__init__)  # type: ignore[method-assign]

    def on_run_end(self, run: Run) -> None:  # noqa: B027
        """Act when a run is over: ``run.outcome`` says how, and ``run.error`` why if it has
        failed. A run that was abandoned has failed.

        A run that ends within its first step has not started, and does not call this; but it
        does if it has called :meth:`before_first_step`.
        """

    def on_report(self, run: Run) -> Mapping[str, Any]:
        """Say what the run's report has of this callback: figures and words by their names, such as
        ``{"shown": 12}``; nothing, unless overridden.

        Called when a report is asked for, in any thread, and once more after :meth:`on_run_end`.
        """
        return {}

    def _name_in_messages(self) -> str:
        return type(self).__name__


def _naming_arguments(init: Callable[..., None]) -> Callable[..., None]:
    """Make a callback's ``__init__`` say what arguments there are, if it is given another."""

    @wraps(init)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            init(self, *args, **kwargs)
        except TypeError as error:
            unknown = "unexpected keyword argument" in str(error)
            if unknown and error.__traceback__ is not None and error.__traceback__.tb_next is None:
                raise _unknown_argument(self, init, kwargs) from None
            raise

    return __init__


def _unknown_argument(callback: Any, init: Any, given: dict[str, Any]) -> TypeError:
    from inspect import signature

    known = [*signature(init).parameters][1:]
    name = next((each for each in given if each not in known), "?")
    near = most_like(name, known)
    instead = f"write {near}=" if near else f"it takes {', '.join(known)}"
    return TypeError(f"{type(callback).__name__} has no argument {name}=; {instead}")


def name_of(callback: Callback) -> str:
    """Return the name by which messages call the callback."""
    return callback._name_in_messages()


class FunctionCallback(Callback):
    """``FunctionCallback`` makes a :class:`Callback` of a plain function in the frameworks' own
    signature.

    The function gets a dict of the named tensors. It may change the dict, return it, return
    another one, or return None; all that is in either goes back into the loop.
    """

    def __init__(self, function: PlainFunction, tensors: Sequence[str]) -> None:
        self.function = function
        self.tensors = tuple(tensors)

    def on_step_end(self, step: Step) -> None:
        before = step._tensors.get("latents")
        handed = {name: step._tensors[name] for name in self.tensors}
        returned = self.function(step.pipeline, step.index, step._timestep, handed)
        if returned is not None and not isinstance(returned, dict):
            raise TypeError(
                f"callback function {self._name()} returned a {type(returned).__qualname__}; "
                "it must return a dict of tensors, or None"
            )
        # Straight into the loop, unchecked: names beyond those asked for are the frameworks'
        # own custom (their loops take back what they know and drop the rest).
        step._tensors.update(handed)
        if returned is not None and returned is not handed:
            step._tensors.update(returned)
        if (latents := step._tensors.get("latents")) is not before and before is not None:
            check_replacement(step, "latents", latents, before)

    def __repr__(self) -> str:
        return self._name()

    def _name_in_messages(self) -> str:
        return self._name()

    def _name(self) -> str:
        return str(getattr(self.function, "__qualname__", repr(self.function)))
