"""Let the user of a binding watch, interrupt and cancel its run."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, get_args

from unicb.checks import number, one_of
from unicb.errors import UnicbError
from unicb.run.asked import Bound
from unicb.run.handle import Handle, Request, State
from unicb.step import Picture

if TYPE_CHECKING:
    from unicb.report import Report


def _from_thread(what: str) -> str:
    return f"{what} in thread {threading.current_thread().name}"


class Controls:
    """``Controls`` show the state of a binding's run, and interrupt or cancel it.

    A request applies to one run: to the current one, or else to the next one, if the pipeline has
    not been called since :func:`unicb.bind`, or has just been called. :meth:`interrupt`,
    :meth:`cancel` and :meth:`wait` may be called in any thread, any number of times.
    """

    def __init__(self, bound: Bound, handle: Handle) -> None:
        self._bound, self._handle = bound, handle

    @property
    def pipeline(self) -> Any:
        """Return the pipeline that the binding was made for."""
        return self._bound.target.pipeline

    @property
    def state(self) -> State:
        """Return the state of the run.

        ``"pending"``: no step has ended yet, and no callback has acted before the first step.
        ``"running"``: the run has begun. ``"finished"``: its last step has ended.
        ``"interrupted"``, ``"cancelled"``: the run was ended on request. ``"failed"``: the loop
        ended before its last step for another reason, such as an error. The next call of the
        pipeline makes the state ``"pending"`` again. Decoding after the last step does not change
        the state.
        """
        return self._handle.look()

    @property
    def step(self) -> int | None:
        """Return the index of the last step that has ended, from 0; None before the first has."""
        return self._handle.step

    @property
    def report(self) -> Report:
        """Return a report of what the latest run has done so far. Before the first step it is
        empty, with the outcome ``"pending"``. ``print(callbacks.report)`` shows it in one screen.

        May be read in any thread. If a call has several loops, the report is about the latest.
        """
        from unicb.report import Report

        state = self._handle.look()
        record = self._handle.record
        if record is None:
            return Report.empty(self._bound.target.name, state)
        return Report.of(record, record.outcome or state)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the run has ended, in whatever way; also for a run that has not begun.

        Args:
            timeout: the most seconds to wait; None: no limit.

        Returns:
            True if the run has ended, False after the timeout.

        Raises:
            UnicbError: called in the run's own thread, as in a callback.
        """
        if timeout is not None:
            timeout = number("timeout", timeout)
        run = self._handle.run
        if run is not None and run.is_calling():
            raise UnicbError("a run cannot wait for its own end: call wait() in another thread")
        return self._handle.wait(timeout)

    def interrupt(self, *, picture: Picture = "denoised") -> bool:
        """Finish the run at the end of its current step, and decode. May be called in any thread.

        Before the run's first step has ended, or before the pipeline is called, the request takes
        effect at the end of the first step. It has no effect on a run that has ended or is to be
        cancelled. A loop that reads no interrupt flag runs to its end without computing anything
        (after an interrupt in the first step, one more step is computed).

        Args:
            picture: what is decoded. ``"denoised"``: the denoised latents of that step, as a
                Preview shows them, or the loop's latents if these cannot be computed.
                ``"latents"``: the loop's latents, as in the frameworks.

        Returns:
            True if there is a run to interrupt.

        Raises:
            ValueError: ``picture`` is none of these words.
            UnsupportedPipelineError: the pipeline's loop cannot be stopped.
        """
        picture = one_of("picture", picture, get_args(Picture))
        request = Request("interrupt", _from_thread("interrupt()"), picture)
        self._bound.target.check_interruptible()
        return self._handle.ask(request)

    def cancel(self, now: bool = False) -> bool:
        """End the run at the end of its current step by raising :class:`GenerationCancelled` from
        the pipeline's call; nothing is decoded. May be called in any thread, and takes effect when
        :meth:`interrupt` would. If called before ``callbacks(...)``, that call raises at once.

        Args:
            now: True: raise before the end of the step, as soon as the denoiser or its next block
                is called (but not inside a compiled model).

        Returns:
            True if there is a run to cancel.
        """
        return self._cancel(_from_thread("cancel()"), now)

    def _cancel(self, by: str, now: bool = False) -> bool:
        """Cancel the run; ``by`` says in the report who asked for it."""
        asked = self._handle.ask(Request("cancel", by))
        if asked and now and self._bound.sharing is None:
            self._handle.put_gates(self._bound.target)
        return asked
