"""Run on several ranks together: a request of one rank takes effect when all have agreed on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, get_args

from unicb._mistakes import check_returned, say_what_to_write
from unicb.callback import Callback, name_of
from unicb.checks import one_of
from unicb.errors import GenerationCancelled, RankError
from unicb.ops import Tensor
from unicb.run.agreement import Agreement, Own, text_of
from unicb.run.asked import Bound, CallTimes
from unicb.run.ending import Outcome
from unicb.run.handle import Request
from unicb.run.loop import Loop, Outputs
from unicb.run.model_hooks import ModelHooks
from unicb.run.run import Run
from unicb.run.sharing import REQUEST, Sharing, request_of
from unicb.run.votes import Verdict, Word
from unicb.step import Picture, Step


class _Guarded(Callback):
    """Wrap a callback whose error is kept until all ranks have agreed on it. After an error it is
    not called again; other callbacks are, because they may need all ranks."""

    def __init__(self, callback: Callback, failed: Callable[[BaseException, str], None]) -> None:
        self._callback, self._failed = callback, failed
        self._is_off = False
        self.tensors, self.owns = callback.tensors, callback.owns

    def _name_in_messages(self) -> str:
        return name_of(self._callback)

    def on_step_end(self, step: Step) -> None:
        if not self._is_off:
            self._do(lambda: self._step_end(step), f"in step {step.index}")

    def _step_end(self, step: Step) -> None:
        try:
            returned: object = self._callback.on_step_end(step)
        except AttributeError as error:
            say_what_to_write(error, name_of(self._callback), step)
            raise
        if returned is not None:
            check_returned(name_of(self._callback), returned, step.run.is_tensor)

    def before_first_step(self, step: Step) -> None:
        self._do(lambda: self._callback.before_first_step(step), "before the first step")

    def on_run_start(self, run: Run) -> None:
        self._do(lambda: self._callback.on_run_start(run), "at the run's start")

    def on_run_end(self, run: Run) -> None:
        self._callback.on_run_end(run)

    def _do(self, work: Callable[[], None], when: str) -> None:
        try:
            work()
        except BaseException as error:
            self._is_off = True
            self._failed(error, f"{when}: {name_of(self._callback)}: {text_of(error)}")


class SharedRun(Run):
    """A run that several ranks share; each rank has an object for its part.

    Args:
        bound, make_loop, times, hooks: as for :class:`Run`.
        sharing: how the run is shared, and with which ranks.
        asked: returns the request, if any, that was made of the run.
    """

    def __init__(
        self,
        bound: Bound,
        make_loop: Callable[[Run], Loop],
        times: CallTimes,
        hooks: ModelHooks,
        sharing: Sharing,
        asked: Callable[[bool], Request | None],
    ) -> None:
        guards = {id(each): _Guarded(each, self._hold) for each, _ in bound.callbacks}
        callbacks = tuple((guards[id(each)], names) for each, names in bound.callbacks)
        early = tuple(guards[id(each)] for each in bound.early)
        super().__init__(bound._replace(callbacks=callbacks, early=early), make_loop, times, hooks)
        self.agreement = Agreement(sharing, lambda: request_of(self.loop_locals(REQUEST)))
        self._sharing, self._asked = sharing, asked
        #: The first error of a callback, and the text about it for the other ranks.
        self.held: BaseException | None = None
        self._text = ""
        #: The picture that a callback wants decoded, if one has interrupted the run.
        self._wish: Picture | None = None
        #: The latents that this callback wrote at the same step.
        self._kept: Tensor | None = None
        self._is_settling = False
        #: Who asked for the run's end on this rank.
        self._by = ""

    def _hold(self, error: BaseException, text: str) -> None:
        if self.held is None:
            self.held = error
            self._text = f"a callback of rank {self._sharing.ranks.own} failed {text}"

    # What this rank says, and what all say.

    def own(self, is_last: bool) -> Own:
        """Return this rank's vote; ``is_last`` is True for the last vote of the run."""
        request = self._asked(is_last)
        if request is not None:
            self._by = self._by or request.by
        cancels = request is not None and request.what == "cancel"
        if self.held is not None and not isinstance(self.held, GenerationCancelled):
            return Own(Word.FAILED, self._text)
        if cancels or self.held is not None:
            return Own(Word.CANCEL)
        if self._wish is not None:
            return Own(Word.INTERRUPT, latents=self._wish == "latents")
        if request is not None:
            return Own(Word.INTERRUPT, latents=request.picture == "latents")
        return Own()

    def agree(self) -> Verdict | None:
        """Agree with the other ranks at the end of a step. Returns what takes effect, if the run is
        not to end in an error; None: the loop goes on, or ends as it does.

        Raises:
            RankError: a rank has failed, has ended, or is at another point of the run.
            Exception: an error of a callback on this rank.
        """
        last = self.next_index is None
        found = self.agreement.step_end(self.own, self.index, self.num_timesteps, last)
        self._raise(found)
        return found

    def before_first_step(self) -> None:
        super().before_first_step()
        own = self.own(False)
        if own.word is Word.INTERRUPT:
            own = Own()  # a request takes effect at the first step's end
        found = self.agreement.before_first_step(own, self.num_timesteps)
        self._raise(found)
        if found is not None:
            raise self.held or GenerationCancelled(-1, None)

    def _raise(self, found: Verdict | None) -> None:
        """Raise the error if a rank has failed."""
        if found is not None and found.word is Word.FAILED:
            if self.held is not None and not isinstance(self.held, GenerationCancelled):
                raise self.held
            raise RankError(found.text or f"rank {found.rank} failed, and does not say why")

    def take_effect(self, found: Verdict, outputs: dict[str, Tensor]) -> None:
        """Interrupt, since all ranks have agreed. Latents that a callback wrote with its request
        are decoded, even if another step was computed since."""
        if self._kept is not None:
            outputs["latents"] = self._kept
        picture: Picture = "latents" if found.latents or self._kept is not None else "denoised"
        super().interrupt(picture, self.stopped_by(found))

    def stopped_by(self, found: Verdict) -> str:
        """Return in words who ends the run, for its report."""
        is_own = found.rank == self._sharing.ranks.own
        return self._by if is_own and self._by else f"rank {found.rank}"

    # Overrides of Run's methods.

    def step_end(self, index: int, timestep: Any, tensors: dict[str, Tensor]) -> Outputs:
        outputs = super().step_end(index, timestep, tensors)
        latents = outputs.get("latents")
        if self._wish == "latents" and self._kept is None and latents is not tensors.get("latents"):
            self._kept = latents
        return outputs

    def interrupt(self, picture: Picture, by: str) -> None:
        self._by = self._by or by
        one_of("picture", picture, get_args(Picture))
        self._bound.target.check_interruptible()
        if self._wish is None or picture == "latents":
            self._wish = picture

    def settle(self, outputs: dict[str, Tensor], handed: Mapping[str, Tensor]) -> None:
        """End the run as :class:`Run` does; it counts as finished only if it is on every rank."""
        self._is_settling = True
        own = Own()
        try:
            super().settle(outputs, handed)
        except BaseException as error:
            self._hold(error, f"at the run's end: {text_of(error)}")
            own = Own(Word.FAILED, self._text)
        found = self.agreement.after_last_step(own, self.index, self.num_timesteps)
        held, self.held = self.held, None
        if held is not None:
            raise held
        self._raise(found)

    def finish(self, outcome: Outcome = "failed", error: BaseException | None = None) -> None:
        if not (self.agreement.is_over or self._is_settling):
            self._leave(error)
        self._kept = self._wish = None
        super().finish(outcome, error)
        self.held = None

    def _leave(self, error: BaseException | None) -> None:
        """End the run in the middle, on this rank."""
        if isinstance(error, GenerationCancelled):
            return self.agreement.leave(Word.CANCEL, "", self.index + 1)
        why = "its loop has ended" if error is None else text_of(error)
        where = f"rank {self._sharing.ranks.own} left the run after step {self.index}"
        self.agreement.leave(Word.FAILED, self._text or f"{where}: {why}", self.index + 1)
