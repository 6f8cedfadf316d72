"""Give whoever has started a binding's run a handle on it."""

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
    """``Controls`` tell what is known of a binding's run, and ask things of it.

    What is asked is asked of one run: of the one that is under way, or else of the next one, if the
    pipeline has not been called since :func:`unicb.bind`, or has just been called.
    :meth:`interrupt`, :meth:`cancel` and :meth:`wait` may be called in any thread, and as often as
    one likes.
    """

    def __init__(self, bound: Bound, handle: Handle) -> None:
        self._bound, self._handle = bound, handle

    @property
    def pipeline(self) -> Any:
        """Return the pipeline that the binding was made for."""
        return self._bound.target.pipeline

    @property
    def state(self) -> State:
        """Tell what has become of the run.

        ``"pending"``: no step has ended yet, nor has a callback acted before the first.
        ``"running"``. ``"finished"``: its last step has ended. ``"interrupted"``, ``"cancelled"``:
        it was ended as asked. ``"failed"``: its loop ended before its last step otherwise, with an
        error. The next call of the pipeline makes it ``"pending"`` again. Whether a pipeline
        decodes afterwards is not part of it.
        """
        return self._handle.look()

    @property
    def step(self) -> int | None:
        """Return the index of the last step that has ended, from 0; None before the first has."""
        return self._handle.step

    @property
    def report(self) -> Report:
        """Say what the latest run has done, so far if it is under way. It is empty, and its outcome
        ``"pending"``, before the first step. ``print(callbacks.report)`` shows it in one screen.

        From any thread. Of several loops in one call, it is about the latest.
        """
        from unicb.report import Report

        state = self._handle.look()
        record = self._handle.record
        if record is None:
            return Report.empty(self._bound.target.name, state)
        return Report.of(record, record.outcome or state)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the run has ended, however; also for one that has not begun.

        Args:
            timeout: seconds; None waits for ever.

        Returns:
            Whether it has.

        Raises:
            UnicbError: this is the thread that the run is in, such as in a callback.
        """
        if timeout is not None:
            timeout = number("timeout", timeout)
        run = self._handle.run
        if run is not None and run.is_calling():
            raise UnicbError("a run cannot wait for its own end: call wait() in another thread")
        return self._handle.wait(timeout)

    def interrupt(self, *, picture: Picture = "denoised") -> bool:
        """Finish the run at the end of its step, and decode what there is. From any thread.

        Called before the run's first step has ended, or before the pipeline is called, it takes
        effect at the end of the first step. Once a run has ended, it does nothing, and of a run
        that is to be cancelled neither. Where a loop reads no interrupt flag, it runs out without
        computing anything (after the first step alone, one more is computed).

        Args:
            picture: what is decoded. ``"denoised"``: the denoised latents of that step, as a
                Preview shows them, where they can be computed, and otherwise the latents as they
                are. ``"latents"``: the latents as they are, as the frameworks do.

        Returns:
            Whether there is a run to interrupt.

        Raises:
            ValueError: ``picture`` is another word.
            UnsupportedPipelineError: the pipeline's loop can be stopped in neither way.
        """
        picture = one_of("picture", picture, get_args(Picture))
        request = Request("interrupt", _from_thread("interrupt()"), picture)
        self._bound.target.check_interruptible()
        return self._handle.ask(request)

    def cancel(self, now: bool = False) -> bool:
        """End the run at the end of its step by raising :class:`GenerationCancelled` out of the
        pipeline's call; nothing is decoded. From any thread, and when as for :meth:`interrupt`.
        ``callbacks(...)`` that is to be cancelled before it is called raises at once.

        Args:
            now: do not wait for the step's end: raise as soon as the denoiser calls its next
                block, or is called. (Not in the middle of a compiled model.)

        Returns:
            Whether there is a run to cancel.
        """
        return self._cancel(_from_thread("cancel()"), now)

    def _cancel(self, by: str, now: bool = False) -> bool:
        """Cancel; ``by``: who asks for it, for the report."""
        asked = self._handle.ask(Request("cancel", by))
        if asked and now and self._bound.sharing is None:
            self._handle.put_gates(self._bound.target)
        return asked
