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
    :meth:`on_step_end`. The other methods do nothing unless overridden. Keep the state of a run in
    ``run.state(self, make)``, so that one object may serve several runs at once and be pickled.

    Example:
        >>> class ClampLatents(Callback):
        ...     tensors = ("latents",)
        ...     def on_step_end(self, step):
        ...         step["latents"] = step.ops.clamp(step["latents"], -4.0, 4.0)
        >>> image = bind(pipe, ClampLatents())("a red star")[0]
    """

    #: Names of tensors, as the pipeline offers them in ``_callback_tensor_inputs``.
    tensors: Sequence[str] = ()

    #: What this callback alone may control in a binding, such as ``"guidance"``.
    owns: Sequence[str] = ()

    #: True if calls with this callback do not show the pipeline's own progress bar, because the
    #: callback has one.
    hides_progress_bar: bool = False

    #: ``"interrupt"``: the first Ctrl-C during a run interrupts it, provided that ``bind`` is given
    #: no ``on_sigint``, the pipeline can be interrupted, and it is called in the main thread.
    on_sigint: OnSigint | None = None

    if not TYPE_CHECKING:  # a type checker would accept any arguments of any callback

        def __new__(cls, *args: Any, **kwargs: Any) -> Self:
            """Note the arguments, as one line for the ``repr``."""
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
        unless overridden, ``tensors``. ``bind`` calls this once."""
        return self.tensors

    def on_bind(self, target: Target) -> None:  # noqa: B027
        """Prepare for a pipeline; raise here if the callback cannot work on this pipeline. ``bind``
        calls this once."""

    def before_first_step(self, step: Step) -> None:  # noqa: B027
        """Act before the first step of a run, as soon as the pipeline's loop calls its denoiser.

        ``step`` has the index -1, no timestep and no tensors. What its methods do to guidance holds
        from the first step on.

        For callbacks that override this, unicb watches the pipeline's models until their first
        call; ``bind`` refuses pipelines whose models it does not know. The binding has to be
        called, as in ``callbacks(prompt)``, or unpacked in the call, as in
        ``pipe(prompt, **callbacks)``. An exception ends the run and reaches the caller.
        """

    def on_run_start(self, run: Run) -> None:  # noqa: B027
        """Prepare for a run, at the end of its first step, before :meth:`on_step_end`."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Raise TypeError: a pipeline cannot call a callback, unless its class overrides this."""
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
        """Act when a run is over: ``run.outcome`` says how it ended, and ``run.error`` why it
        failed. An abandoned run counts as failed.

        Not called for a run that ends within its first step, unless :meth:`before_first_step` was
        called.
        """

    def on_report(self, run: Run) -> Mapping[str, Any]:
        """Return this callback's entries in the run's report: numbers and words by name, such as
        ``{"shown": 12}``. Unless overridden, there are none.

        Called whenever a report is asked for, in any thread, and once more after
        :meth:`on_run_end`.
        """
        return {}

    def _name_in_messages(self) -> str:
        return type(self).__name__


def _naming_arguments(init: Callable[..., None]) -> Callable[..., None]:
    """Make a callback's ``__init__`` name its arguments, if it is called with an unknown one."""

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
    """Return the callback's name in messages."""
    return callback._name_in_messages()


class FunctionCallback(Callback):
    """``FunctionCallback`` wraps a plain function in the frameworks' own signature.

    The function gets a dict of the named tensors. It may change this dict, and may return it,
    another dict, or None; the entries of both dicts go back into the loop.
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
        # Straight into the loop, unchecked: the frameworks' callbacks may return further names, of
        # which a loop takes back those that it knows and drops the rest.
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
