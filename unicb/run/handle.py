"""Decide, under one lock, what has become of a binding's run, and what is asked of it."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from unicb.errors import UnicbError
from unicb.run.calls import Calls
from unicb.run.stopping import Gates
from unicb.step import Picture

if TYPE_CHECKING:
    from unicb.pipelines.target import Target
    from unicb.run.record import Record
    from unicb.run.run import Run

log = logging.getLogger("unicb")

#: What has become of a binding's run.
State: TypeAlias = Literal["pending", "running", "finished", "interrupted", "cancelled", "failed"]

_OPEN = ("pending", "running")
_LOOK_SECONDS = 0.05


class Request(NamedTuple):
    """A request says what is asked of a run.

    Attributes:
        what: whether to interrupt or to cancel it.
        by: who or what asks, for the run's report.
        picture: what an interrupted run decodes.
    """

    what: Literal["interrupt", "cancel"]
    by: str
    picture: Picture = "denoised"


class Handle:
    """A handle has the state of a binding's runs, one after another. It decides, and does no other
    work.

    Attributes:
        state: the state of the run that is under way, or of the last run.
        step: index of the last step that has ended, from 0; None before the first step has ended.
        request: what is asked of the run that is under way, or of the next run.
        run: the run that is under way, or one that has ended and still has changes to put back.
        record: the record of the latest run; None before the first run, and from the beginning of a
            call to that call's first run.
        has_failed: True if a run has ever failed. The loop of such a run may be a generator that is
            resumed.
        decode_seconds: seconds from the last step of the last call to its return; None if unknown.
        calls: the calls that were handed to pipelines.
    """

    def __init__(self) -> None:
        self.state: State = "pending"
        self.step: int | None = None
        self.request: Request | None = None
        self.run: Run | None = None
        self.record: Record | None = None
        self.has_failed = False
        self.decode_seconds: float | None = None
        self._before: tuple[State, int | None, Record | None] = "pending", None, None
        self._gates: Gates | None = None
        self._is_deciding = False
        self._changed = threading.Condition()
        self.calls = Calls(self._changed)

    def ask(self, request: Request) -> bool:
        """Ask something of the run. Returns whether there is one, or is to be one."""
        self.look()
        with self._changed:
            if self.state not in _OPEN and not self.calls.are_awaited():
                return False
            if self._is_deciding:
                return False  # too late
            if self.request is None or self.request.what != "cancel":
                self.request = request
        if log.isEnabledFor(logging.DEBUG):
            log.debug("asked to %s the run, by %s", request.what, request.by)
        return True

    def ask_interrupt(self, frame: FrameType | None) -> bool:
        """Ask the run to finish with the picture so far, whatever this frame is executing."""
        return self.ask(Request("interrupt", "Ctrl-C"))

    def asked(self, is_last: bool) -> Request | None:
        """Return what is asked of the run, for other ranks to hear. Who asks more after this, where
        it is the last time, is too late, and learns that."""
        with self._changed:
            self._is_deciding = is_last
            return self.request

    def put_gates(self, target: Target) -> None:
        """Put the hooks that cancel at once on the models, if the run is to be cancelled still."""
        with self._changed:
            if self.request is not None and self.request.what == "cancel" and self._gates is None:
                self._gates = Gates(target.backend, target.models, self.calls.cancel_at_once)

    def remove_gates(self) -> None:
        """Take away the hooks that cancel at once. Idempotent."""
        with self._changed:
            gates, self._gates = self._gates, None
        if gates is not None:
            gates.remove()

    def calling(self) -> Request | None:
        """Note that the pipeline is being called. Returns what is asked of the call beforehand."""
        with self._changed:
            if self.state != "pending":
                self.state, self.step = "pending", None
            self.record = None
            return self.request

    def begin(self, make: Callable[[], Run]) -> Run:
        """Begin a run: a loop of a call has begun.

        Raises:
            UnicbError: another run of the binding has not ended.
        """
        with self._changed:
            previous = self.run
            if previous is not None and previous.is_executing():
                raise UnicbError(
                    "this binding is in use by a run that has not ended; call bind() once for each "
                    "of two runs at the same time"
                )
            if previous is not None:
                previous.finish()
            self._before = self.state, self.step, self.record
            self.state, self.step = "running", None
            self.run = run = make()
            self.record = run.record
            self._changed.notify_all()
            return run

    def decoded_since(self, began: float, call: int) -> None:
        """Note that the call of this number has returned; its last step ended then, on
        ``time.monotonic``'s clock."""
        if call == self.calls.count:  # what ends later was kept, by a traceback for example
            self.decode_seconds = time.monotonic() - began
            if self.record is not None:
                self.record.decode_seconds = self.decode_seconds

    def last_step(self, run: Run) -> Request | None:
        """Note that the run's last step has ended, or that something is asked of the run. Returns
        what is.

        Whoever asks after this is too late, and gets that answer.
        """
        with self._changed:
            request = self.request
            if request is None or request.what != "cancel":
                interrupted = run.interrupted or request is not None
                self._settled("interrupted" if interrupted else "finished")
            return request

    def settle(self, run: Run | None, state: State) -> bool:
        """Note that the run has ended, as far as whoever holds the handle is concerned; None: that
        the call has, without any run. Returns whether it had not before."""
        with self._changed:
            ended = self.run is run and self.state == "running" if run else self.state == "pending"
            if not ended:
                return False
            if run is not None and run.index < 0 and self._before[0] == "finished":
                # Not a loop's first step after all: the denoiser, called after the last one.
                state, self.step, self.record = self._before
            self._settled(state)
            return True

    def _settled(self, state: State) -> None:
        self.state, self.request, self._is_deciding = state, None, False
        self.has_failed |= state == "failed"
        self._changed.notify_all()

    def forget(self) -> None:
        """Drop what was asked of a call that is over before its first step; no other call is asked
        it."""
        with self._changed:
            if self.state != "running" and not self.calls.are_awaited():
                self.request = None

    def close(self) -> None:
        """Have nothing left of any run, or of what was asked."""
        if (run := self.run) is not None:
            self.settle(run, "failed")
            run.finish()
        self.remove_gates()
        for call in self.calls.live():
            call.release()

    def over(self, run: Run) -> None:
        """Note that nothing is left of the run."""
        if self.settle(run, "failed"):  # where it has not ended in another way
            self.remove_gates()
            for call in self.calls.live():
                if call.has_run(run):
                    call.settled()
        with self._changed:
            if self.run is run:
                self.run = None

    def look(self) -> State:
        """Return the state, after a look at whether the run's loop is still there."""
        run = self.run
        if run is not None and not run.loop.is_executing():
            run.finish()
        with self._changed:
            if self.state not in _OPEN and any(
                call.is_awaited and call.is_executing() for call in self.calls.live()
            ):
                self.state, self.step = "pending", None
            return self.state

    def wait(self, timeout: float | None) -> bool:
        """Wait until the run has ended; returns whether it has."""
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while self.look() in _OPEN or self.calls.are_awaited():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            with self._changed:
                # Nobody tells of a run that has failed: it is looked after.
                self._changed.wait_for(lambda: self.state not in _OPEN, min(left, _LOOK_SECONDS))
        return True
