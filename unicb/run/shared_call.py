"""Call a pipeline whose runs are shared with other ranks."""

from __future__ import annotations

from functools import partial
from sys import _getframe
from typing import Any

from unicb.errors import GenerationCancelled
from unicb.ops import Tensor
from unicb.run.agreement import Agreement, text_of
from unicb.run.asked import Bound, CallTimes
from unicb.run.call import Call, cancelled
from unicb.run.call_loop import loop_of
from unicb.run.handle import Handle
from unicb.run.loop import FrameId, Outputs
from unicb.run.run import Run
from unicb.run.scope import Scope
from unicb.run.shared_run import SharedRun
from unicb.run.sharing import Sharing
from unicb.run.sigint import Sigint
from unicb.run.votes import Word


class SharedCall(Call):
    """Act as the pipeline's callback at the end of each step, on every rank.

    Args:
        bound, handle, sigint, scope: as for :class:`Call`.
        sharing: how the runs are shared, and with which ranks.
    """

    def __init__(
        self,
        bound: Bound,
        handle: Handle,
        sigint: Sigint,
        scope: Scope | None,
        sharing: Sharing,
    ) -> None:
        super().__init__(bound, handle, sigint, scope)
        self._sharing = sharing

    def __call__(
        self, pipeline: Any, index: int, timestep: Any, callback_kwargs: dict[str, Tensor]
    ) -> Outputs:
        run, handle = self._run, self._handle
        if run is None or run.next_index != index or (self._scope is None and handle.has_failed):
            run = self._run_of(pipeline, _getframe(1))
            if run.runs_out:
                return self._decoding.timed(run.run_out(index, callback_kwargs), run.loop)
        assert isinstance(run, SharedRun)
        try:
            outputs = run.step_end(index, timestep, callback_kwargs)
            handle.step = run.index
            found = run.agree()
            if found is None and run.next_index is not None:
                run.denoised.goes_on_with(outputs.get("latents"))
                return outputs
            if found is not None and found.word is Word.CANCEL:
                run.record.stopped(run.stopped_by(found), run.index)
                raise run.held or cancelled(run, outputs.get("latents"))
            if found is not None:
                run.take_effect(found, outputs)
            handle.settle(run, "finished" if found is None else "interrupted")
        except BaseException as error:
            self._fail(run, error)
            raise
        self.settled()
        run.settle(outputs, callback_kwargs)
        return self._decoding.timed(outputs, run.loop)

    def end(self, error: BaseException | None) -> None:
        run = self._run
        if error is not None and run is None and self.is_awaited:
            self._is_over = True
            leave_between(self._sharing, error, "before the run's first step")
        elif error is not None and isinstance(run, SharedRun) and run.agreement.has_ended_well:
            # The others may be at another loop of the call.
            leave_between(self._sharing, error, "after a run that ended well")
        super().end(error)

    def _new_run(self, frame_id: FrameId) -> Run:
        times = CallTimes(self._called_at, self._handle.decode_seconds)
        loop = partial(loop_of, frame_id, self._scope)
        asked = self._handle.asked
        return SharedRun(self._bound, loop, times, self._hooks, self._sharing, asked)


def leave_between(sharing: Sharing, error: BaseException, when: str) -> None:
    """Tell the other ranks that this rank has no run, or no further run of a call, because of this
    error."""
    if isinstance(error, GenerationCancelled):
        word, text = Word.CANCEL, ""
    else:
        where = f"rank {sharing.ranks.own} failed {when}"
        word, text = Word.FAILED, f"{where}: {text_of(error)}"
    Agreement(sharing).leave(word, text, -1)
