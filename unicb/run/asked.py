"""Answer what the callbacks of a run may ask of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from unicb._states import States
from unicb.backend import Around
from unicb.callback import Callback
from unicb.ops import Tensor, TensorOps
from unicb.run.around_models import AroundModel, answer_models
from unicb.run.denoised import RunDenoised
from unicb.run.ending import Ending, Outcome
from unicb.run.holds import Hold, hold
from unicb.run.loop import Loop, loop_locals
from unicb.run.model_hooks import ModelHooks
from unicb.run.record import Record, notes_of
from unicb.step import DenoisedKind

if TYPE_CHECKING:
    from unicb.pipelines.target import Target
    from unicb.report import Report
    from unicb.run.run import Run
    from unicb.run.sharing import Sharing

T = TypeVar("T")


class Bound(NamedTuple):
    """``Bound`` holds what a binding's runs have in common.

    Attributes:
        target: the pipeline.
        callbacks: in their order, each with the names of the tensors that it is handed.
        early: those that act before the first step.
        on_over: called when nothing is left of a run.
        tensor_types: of what has been found to be a tensor.
        hides_bar: whether the pipeline's own progress bar is not shown.
        sharing: with which ranks their runs are shared; None where with none.
    """

    target: Target
    callbacks: tuple[tuple[Callback, Sequence[str]], ...]
    early: tuple[Callback, ...]
    on_over: Callable[[Run], None]
    tensor_types: set[type]
    hides_bar: bool = False
    sharing: Sharing | None = None

    @property
    def awaits_first_step(self) -> bool:
        """Return whether somebody acts before a run's first step."""
        return bool(self.early) or self.target.is_to_be_seen or self.sharing is not None


class CallTimes(NamedTuple):
    """``CallTimes`` holds what is known of a call's time.

    Attributes:
        called_at: seconds on ``time.monotonic``'s clock when the pipeline was called.
        decode_seconds: what an earlier call took from its last step to its return; None if that is
            not known.
    """

    called_at: float
    decode_seconds: float | None


class AskedRun:
    """``AskedRun`` is a run, as its callbacks see it.

    Attributes:
        loop: which calls the pipeline's models.
        ending: what is done at its end.
        denoised: the denoised latents of its steps.
        ops: the tensor operations of the pipeline's framework.
        record: what is noted of it for its report.
    """

    loop: Loop
    denoised: RunDenoised
    _hooks: ModelHooks

    def __init__(self, bound: Bound, times: CallTimes) -> None:
        self.ending = Ending()
        self._bound, self._times = bound, times
        self.ops: TensorOps = bound.target.backend.ops
        self._calls_back = False
        self._states = States()
        notes = partial(notes_of, cast("Run", self), bound.callbacks)
        self.record = Record(bound.target.name, times.called_at, notes)

    def owns_current_call(self) -> bool:
        """Return whether the caller is the run's own loop: not another pipeline, and not one of the
        run's callbacks."""
        return not self._calls_back and not self.ending.begun and self.loop.is_calling()

    @property
    def pipeline(self) -> Any:
        """Return the pipeline that is running."""
        return self._bound.target.pipeline

    @property
    def outcome(self) -> Outcome | None:
        """Tell how the run has ended; None while it runs."""
        return self.ending.outcome

    @property
    def error(self) -> BaseException | None:
        """Return the error that ended the run, where it has failed or was cancelled, and that is
        known; else None. It is kept until :meth:`unicb.Callback.on_run_end` has returned."""
        return self.ending.error

    @property
    def called_at(self) -> float:
        """Return when the pipeline was called: seconds on ``time.monotonic``'s clock."""
        return self._times.called_at

    @property
    def decode_seconds(self) -> float | None:
        """Return how many seconds an earlier call took from its last step to its return; None if
        that is unknown."""
        return self._times.decode_seconds

    @property
    def report(self) -> Report:
        """Say what it has done so far; see :class:`unicb.Report`. From any thread."""
        from unicb.report import Report

        return Report.of(self.record, self.ending.outcome or "running")

    def warned(self, message: str) -> None:
        """Have the run's report name a warning, which whoever calls this has given or will."""
        self.record.warned(message)

    @property
    def denoised_kind(self) -> DenoisedKind:
        """Tell how good ``step.denoised()`` is on the run's scheduler, from the end of the first
        step on."""
        return self.denoised.kind

    @property
    def target(self) -> Target:
        """Return what is known of the pipeline."""
        return self._bound.target

    @property
    def rank(self) -> int:
        """Return the number of this process among those that were started together, from 0."""
        return self.target.backend.rank()[0]

    @property
    def is_first_rank(self) -> bool:
        """Return whether this process is the first of those that share the run, or the only one:
        what is to be shown or written once is so there."""
        sharing = self._bound.sharing
        return sharing is None or sharing.is_first

    @property
    def is_shared(self) -> bool:
        """Return whether several ranks share the run."""
        return self._bound.sharing is not None

    @property
    def stop_delay(self) -> int:
        """Return how many more steps the run takes after the one in which one of several ranks asks
        for its end; 0 where it has no others to ask."""
        sharing = self._bound.sharing
        return 0 if sharing is None else sharing.stop_delay

    def state(self, callback: Callback, make: Callable[[], T]) -> T:
        """Return what ``callback`` keeps of this run; ``make`` gives it the first time."""
        return self._states.of(callback, make)

    def kept(self, callback: Callback) -> Any:
        """Return what ``callback`` keeps of this run by :meth:`state`; None if that is nothing."""
        return self._states.get(callback)

    def is_tensor(self, value: object) -> bool:
        """Return whether the value is a tensor of the pipeline's framework."""
        known = self._bound.tensor_types
        if type(value) in known:
            return True
        found = self._bound.target.backend.is_tensor(value)
        if found:
            known.add(type(value))
        return found

    def aside(self, work: Callable[..., T], *tensors: Tensor) -> Callable[[], T]:
        """See :meth:`unicb.Step.aside`."""
        return self._bound.target.backend.aside(work, tensors)

    def loop_locals(self, names: Sequence[str]) -> dict[str, Any]:
        """Return the values of the loop's local variables by these names, as far as there are such.
        It works only while the loop is calling: in the methods of a callback that are handed a
        step."""
        step = self._bound.target.block_step
        if step is not None:
            return step.values(names)
        return loop_locals(self.loop.frame_id, names)

    def on_finish(self, undo: Callable[[], None]) -> None:
        """Have ``undo`` called when the run is over, however it ends."""
        self.ending.changes.callback(undo)

    def hold(self, obj: Any, name: str, value: Any) -> Hold:
        """Have an attribute of an object that others use too be ``value`` in the run's own calls,
        to its end; in all others it is what it was. See :meth:`as_own` for how to change it.

        Raises:
            AttributeError, TypeError: the object has no such attribute, or cannot have one that
                answers by who is calling.
            UnsupportedPipelineError: it is built into a compiled model, which would not ask it.
        """
        self.target.check_changeable(obj)
        held = hold(obj, name, value, self)
        self.on_finish(held.release)
        return held

    def hook(self, model: Any, around: Around, *, outermost: bool = False) -> Callable[[], None]:
        """Have ``around`` answer a model's calls, whoever makes them; see
        :meth:`unicb.Backend.hook`.

        Raises:
            UnsupportedPipelineError: it is built into a compiled model, which would not call it.
        """
        self.target.check_changeable(model)
        return self._hooks.hook(model, around, outermost=outermost)

    def around_models(self, around: AroundModel) -> None:
        """Have ``around(model, call, args, kwargs)`` answer the run's own calls of its denoisers,
        and of the models that are called with the same rows, such as ControlNets, to its end.
        ``call(*args, **kwargs)`` gives the model's own answer.

        From :meth:`unicb.Callback.before_first_step` on, it answers the first call, too. Calls that
        are not the run's, such as a callback's, are not handed to it. Of several, the latest is
        asked first. Where guidance is cut later, it is handed the rows that are left.

        Raises:
            UnsupportedPipelineError: which models the pipeline calls is not known, or one of them
                cannot be hooked.
        """
        answer_models(self, around)

    @contextmanager
    def as_own(self) -> Iterator[None]:
        """Act, within the block, as the run's own loop does: what is held has the run's values in
        it."""
        before, self._calls_back = self._calls_back, False
        try:
            yield
        finally:
            self._calls_back = before
