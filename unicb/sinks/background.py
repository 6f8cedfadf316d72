"""Hand frames to a sink without making the run wait for it."""

from __future__ import annotations

import contextvars
import logging
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias, cast

from unicb._described import short
from unicb.checks import number_within, whole_number
from unicb.sinks.failures import failure, sink_name
from unicb.sinks.frame import PreviewFrame
from unicb.sinks.sink import Sink, SinkLike, Wish, as_sink

log = logging.getLogger("unicb")

_LONGEST_WAIT = 86400.0
_LOOK_SECONDS = 0.05

#: A function, called in the thread, that returns a frame, or None if there is nothing to show.
Make: TypeAlias = Callable[[], PreviewFrame | None]


class Background:
    """Hand the frames to a sink in a thread of its own, so that the run does not wait for the sink.

    A :class:`unicb.Preview` wraps every sink in one of these, unless it is one already.

    The thread starts with the first frame of a run and ends with ``close``. It takes the frames
    from a queue; while that is full, each new frame drops the oldest in it, so a sink that is
    too slow misses steps, and what it gets is never older than ``maxsize`` steps.

    ``close`` waits until what is queued has been handed over and the sink is closed, but no
    longer than ``flush_timeout``. After that, it stops waiting: queued frames are dropped, and once
    the sink returns from its current call it is closed, and the thread ends. Frames of a new run
    wait in the queue until then: no sink is ever called by two threads at once.

    A sink that raises gets no further frames of that run, and is closed. A RuntimeWarning, in the
    thread that calls or closes, names a sink that raised or was not waited for.

    Args:
        sink: a sink, or whatever :func:`as_sink` turns into one.
        maxsize: how many frames may wait, from 1; None: no limit, and no frame is dropped.
        flush_timeout: the most seconds that ``close`` waits, 0..86400.

    Raises:
        TypeError, ValueError: as from :func:`as_sink`, or for a value out of range.

    Attributes:
        shown: number of frames handed to the sink.
        dropped: number of frames not handed over, because the sink was too slow or has raised.
        warned: the warnings that were given.
    """

    def __init__(
        self, sink: SinkLike, maxsize: int | None = 16, *, flush_timeout: float = 10.0
    ) -> None:
        self._turn = _Turn(as_sink(sink), threading.Lock())
        self._maxsize = None if maxsize is None else whole_number("maxsize", maxsize)
        self._flush_timeout = number_within("flush_timeout", flush_timeout, 0.0, _LONGEST_WAIT)
        self._lock = threading.RLock()
        self._worker: _Worker | None = None
        self._counts = _Counts()
        self.warned: list[str] = []

    def __repr__(self) -> str:
        return f"Background({short(self.sink)})"

    def __reduce__(self) -> tuple[Any, ...]:
        made = partial(type(self), flush_timeout=self._flush_timeout)
        return made, (self.sink, self._maxsize)

    def for_run(self) -> Background:
        """Return a Background for one of several runs, with a queue and a thread of its own.

        If the sink has a method ``for_run``, the run's frames go to the sink that it returns;
        otherwise the sink gets the frames of all runs, from one thread at a time.
        """
        own = getattr(self.sink, "for_run", None)
        other = Background(
            self.sink if own is None else own(), self._maxsize, flush_timeout=self._flush_timeout
        )
        if own is None:
            other._turn.calling = self._turn.calling
        return other

    def __call__(self, frame: PreviewFrame) -> None:
        if self.wants_more():
            self.put(lambda: frame)

    @property
    def shown(self) -> int:
        return self._counts.shown

    @property
    def dropped(self) -> int:
        return self._counts.dropped

    @property
    def sink(self) -> Sink:
        """Return the sink that the frames are handed to."""
        return self._turn.sink

    def asked(self) -> Wish | None:
        """Return what the sink asks of the run; None if it asks nothing."""
        return cast(Wish | None, self._call_beside("asked"))

    def ended(self, outcome: str, done: int) -> None:
        """Tell the sink how the run has ended, if it has a method ``ended``."""
        self._call_beside("ended", outcome, done)

    def _call_beside(self, method: str, *about: Any) -> Any:
        """Call an optional method of the sink in the run's thread; an error in it becomes a
        warning."""
        called = getattr(self.sink, method, None)
        if not callable(called):
            return None
        try:
            return called(*about)
        except Exception as error:
            complaint = f"{method}() of the sink {sink_name(self.sink)} failed: {failure(error)}"
            if complaint not in self.warned:
                self.warned.append(complaint)
                _tell(complaint)
            return None

    def wants_more(self) -> bool:
        """Return whether the sink takes frames; False after it raised, to the end of the run.

        Errors of earlier frames are warned of here.
        """
        with self._lock:
            if self._worker is None:
                self._worker = _Worker(self._turn, self._maxsize, self._counts)
            worker = self._worker
        self._tell_of(worker)
        return not worker.is_off

    def put(self, make: Make) -> None:
        """Queue a frame that the thread makes and hands over."""
        with self._lock:
            if self._worker is None:
                self._worker = _Worker(self._turn, self._maxsize, self._counts)
            worker = self._worker
        worker.put(make)

    def complain(self, complaint: str) -> None:
        """Note a message of which the run's thread warns. To be called in ``make``."""
        with self._turn.changed:
            if self._turn.worker is not None:
                self._turn.worker.complain(complaint)

    def close(self) -> None:
        """Hand over the queued frames, within the timeout, and end the thread: the run is over."""
        with self._lock:
            worker, self._worker = self._worker, None
        if worker is not None:
            worker.finish(self._flush_timeout)
            self._tell_of(worker)

    def _tell_of(self, worker: _Worker) -> None:
        complaints = worker.complaints()
        self.warned += complaints
        for complaint in complaints:
            _tell(complaint)


def _tell(complaint: str) -> None:
    # Outside of any lock: a filter may turn the warning into an exception.
    warnings.warn(complaint, RuntimeWarning, stacklevel=5)


class _Counts:
    """Count frames; guarded by ``_Turn.changed``."""

    def __init__(self) -> None:
        self.shown = self.dropped = 0

    def drop(self, count: int, why: str) -> None:
        self.dropped += count
        if count and log.isEnabledFor(logging.DEBUG):
            log.debug("%d preview%s dropped: %s", count, "s" if count > 1 else "", why)


class _Turn:
    """``_Turn`` holds the sink, and lets one run's thread call it at a time. ``calling`` is locked
    during a call."""

    def __init__(self, sink: Sink, calling: threading.Lock) -> None:
        self.sink, self.calling = sink, calling
        self.changed = threading.Condition()  # its lock is reentrant
        self.worker: _Worker | None = None


class _Worker:
    """A worker is the queue and the thread of one run; ``_Turn.changed`` guards all of its
    state."""

    def __init__(self, turn: _Turn, maxsize: int | None, counts: _Counts) -> None:
        self._turn, self._counts = turn, counts
        self._queue: deque[Make] = deque(maxlen=maxsize)
        self._closing = False  # no more frames will come
        self._given_up = False
        self.is_off = False  # the sink has raised
        self._complaints: list[str] = []
        # A user's sink may look at context variables, such as whose request this is.
        context = contextvars.copy_context()
        self._thread = threading.Thread(
            target=context.run, args=(self._work,), name="unicb-previews", daemon=True
        )
        self._thread.start()

    def put(self, make: Make) -> None:
        with self._turn.changed:
            if not self._closing:
                is_full = len(self._queue) == self._queue.maxlen
                self._counts.drop(int(is_full), "the sink is too slow")
                self._queue.append(make)
                self._turn.changed.notify_all()

    def complain(self, complaint: str) -> None:
        with self._turn.changed:
            self._complaints.append(complaint)

    def complaints(self) -> list[str]:
        """Return the complaints to warn of; each is returned once."""
        with self._turn.changed:
            taken, self._complaints = self._complaints, []
            return taken

    def finish(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        with self._turn.changed:
            self._closing = True
            self._turn.changed.notify_all()
        # The garbage collector may notice the end of a run, in any thread.
        if self._thread is not threading.current_thread():
            self._thread.join(max(0.0, deadline - time.monotonic()))
            if self._thread.is_alive():
                self._give_up(timeout)

    def _give_up(self, timeout: float) -> None:
        with self._turn.changed:
            self._given_up = True
            waiting = len(self._queue)
            self._counts.drop(waiting, "the sink was still busy at the end")
            self._queue.clear()
            self._turn.changed.notify_all()
            if not self.is_off:
                self.complain(
                    f"previews were given up at the end of this run: their sink was still busy "
                    f"after {timeout:g} s, with {waiting} more waiting"
                )

    def _work(self) -> None:
        if not self._take_turn():
            return
        try:
            self._hand_over()
        finally:
            with self._turn.changed:
                self._turn.worker = None
                self._turn.changed.notify_all()

    def _take_turn(self) -> bool:
        """Wait for an earlier run's thread that is still in the sink; return whether this thread
        may call it."""
        turn = self._turn
        with turn.changed:
            turn.changed.wait_for(lambda: turn.worker is None or self._given_up)
            if self._given_up:
                return False
            turn.worker = self
            return True

    def _hand_over(self) -> None:
        # Anything that a sink raises, also SystemExit, becomes a warning in the run's thread.
        name, at = sink_name(self._turn.sink), "a picture could not be made"
        try:
            while (make := self._next()) is not None:
                frame = make()
                del make  # it keeps tensors alive on the device
                if frame is not None:
                    at = f"the sink {name} failed at step {frame.step}"
                    self._call(frame)
                at = "a picture could not be made"
        except BaseException as error:
            self._switch_off(at, error, lost=1)
        try:
            self._turn.sink.close()
        except BaseException as error:
            self._switch_off(f"the sink {name} failed as it was closed", error, lost=0)

    def _call(self, frame: PreviewFrame) -> None:
        # Another run's thread may be in the sink, and may never return.
        while not self._turn.calling.acquire(timeout=_LOOK_SECONDS):
            if self._given_up:
                with self._turn.changed:
                    self._counts.drop(1, "the sink was still busy at the end")
                return
        try:
            self._turn.sink(frame)
        finally:
            self._turn.calling.release()
        with self._turn.changed:
            self._counts.shown += 1

    def _next(self) -> Make | None:
        with self._turn.changed:
            self._turn.changed.wait_for(lambda: self._queue or self._closing)
            return self._queue.popleft() if self._queue else None

    def _switch_off(self, at: str, error: BaseException, lost: int) -> None:
        with self._turn.changed:
            self._closing = True
            self._counts.drop(len(self._queue) + lost, "the sink has raised")
            self._queue.clear()
            if not (self.is_off or self._given_up):
                # Only the error's text is kept: its traceback would keep the frame's pictures
                # alive.
                self.complain(f"previews are off for the rest of this run: {at}: {failure(error)}")
            self.is_off = True
