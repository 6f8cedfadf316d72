"""Generate as an iterator: previews while it runs, then what the pipeline returned."""

from __future__ import annotations

import atexit
import contextvars
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from unicb.binding import Binding, bind
from unicb.callback import Callback, PlainFunction
from unicb.callbacks.preview import Preview, Source
from unicb.checks import whole_number
from unicb.errors import GenerationCancelled
from unicb.latents import Frames, LatentFormat
from unicb.run.busy import Lease
from unicb.sinks import Background, Batch, PreviewFrame, Size
from unicb.step import Picture, Step

if TYPE_CHECKING:
    from unicb.latents.decoders import Decoder
    from unicb.report import Report
    from unicb.run.run import Run

_CALLBACK = "callback_on_step_end"
_EXIT_TIMEOUT = 10.0


@dataclass(frozen=True, eq=False)  # arrays and tensors cannot be compared to a truth value
class Result:
    """A result is the last item of a :class:`Stream`. It equals itself only, whatever the output.

    Attributes:
        output: what the pipeline's call returned.
    """

    output: Any


def stream(
    pipeline: Any,
    /,
    *args: Any,
    every: int = 1,
    max_fps: float | None = None,
    size: Size | None = None,
    batch: Batch = "all",
    video_frames: Frames = "middle",
    source: Source = "denoised",
    factors: LatentFormat | str | os.PathLike[str] | None = None,
    decoder: Decoder | None = None,
    backlog: int = 1,
    callbacks: Sequence[Callback | PlainFunction] = (),
    **kwargs: Any,
) -> Stream:
    """Generate, and get the previews as items of an iterator; its last item is the result.

    Example:
        >>> for event in stream(pipe, "a red star", num_inference_steps=30, size=256):
        ...     if isinstance(event, Result):
        ...         picture = event.output.images[0]
        ...     else:
        ...         show(event.images[0], event.step)

    The pipeline runs in a thread of its own and never waits for who iterates: previews that are
    not taken in time are dropped, the oldest first. The result is never dropped.

    Args:
        pipeline: as for :func:`unicb.bind`.
        args, kwargs: what to call the pipeline with, besides.
        every, max_fps, size, batch, source, factors, decoder: which steps to show, and how, as for
            :class:`unicb.Preview`.
        video_frames: its ``frames``; there are pipelines that take ``frames`` themselves.
        backlog: how many previews wait for who iterates, from 1. With 1 it is always the newest
            that is next. To get each and every one, give at least the number of steps.
        callbacks: further callbacks, called before the preview is made.

    Raises:
        PipelineBusyError: the pipeline, or a scheduler that it shares, has a run under way, or is
            another stream's.
        TypeError, ValueError: an argument of a wrong kind, or out of range; a
            ``callback_on_step_end`` among ``kwargs``, which belongs into ``callbacks``.
        UnicbError, OSError: as from :func:`unicb.bind` and :class:`unicb.Preview`.
    """
    if _CALLBACK in kwargs:
        raise TypeError(f"stream() takes callbacks=[...] in place of {_CALLBACK}")
    if callable(callbacks) or isinstance(callbacks, Callback):
        raise TypeError(f"callbacks takes a list of callbacks; write [{callbacks!r}]")
    job = _Job(whole_number("backlog", backlog))
    preview = Preview(
        Background(job.put, maxsize=None),  # it never waits, and drops what is too much itself
        every,
        max_fps=max_fps,
        size=size,
        batch=batch,
        frames=video_frames,
        source=source,
        factors=factors,
        decoder=decoder,
    )
    job.binding = bind(pipeline, *callbacks, preview, _StopWhenCancelled(job))
    lease = job.binding._lease(job)
    return Stream(job, partial(job.binding._call, lease, args, kwargs), lease)


class Stream(Iterator[PreviewFrame | Result]):
    """A stream is a generation under way; made by :func:`stream`.

    Nothing runs before the first item is asked for; but the pipeline is this stream's from the
    beginning. After the last item there is no thread any more, and the pipeline is free. An error
    of the pipeline is raised in place of the result, with its traceback.

    To leave it early is to cancel: the run ends at the end of the step that it is in, and so does
    the thread. It is left once nobody refers to it, once an interrupt such as Ctrl-C ends the
    waiting for an item, and once a loop over it was left by ``break`` or by an error and the
    pipeline is called again, or given to a next stream; that one waits by itself. Who wants to
    wait writes ``with stream(...) as events:``.
    """

    def __init__(self, job: _Job, call: Callable[[], Any], lease: Lease) -> None:
        self._job = job
        self._call: Callable[[], Any] | None = call
        self._lease = lease
        self._lock = threading.Lock()
        # The thread knows the job and not the stream, so that a stream that is dropped dies. That
        # may be in the middle of anything, so it waits for nobody's run.
        weakref.finalize(self, job.drop, lease).atexit = False

    def __iter__(self) -> Iterator[PreviewFrame | Result]:
        return _Iteration(self)

    def __next__(self) -> PreviewFrame | Result:
        """Return the next preview, or at last the result; wait for it.

        Raises:
            Exception: whatever the pipeline's call raised.
        """
        self._start()
        return self._job.next()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def interrupt(self, *, picture: Picture = "denoised") -> bool:
        """Finish at the end of the step, and decode what there is: the result comes early.

        From any thread; see :meth:`unicb.Binding.interrupt`, also for ``picture`` and for what it
        raises. Returns whether there is a run to interrupt.
        """
        return self._job.binding.interrupt(picture=picture)

    @property
    def report(self) -> Report:
        """Say what the run has done; see :attr:`unicb.Binding.report`. From any thread."""
        return self._job.binding.report

    def cancel(self) -> None:
        """End the run at the end of its step; no further item comes. Any thread may call it, at
        once."""
        self._job.cancel()

    def close(self) -> None:
        """Cancel, and wait until the run and its thread have ended. Any thread may call it."""
        self._job.cancel()
        with self._lock:  # not while the thread is being started
            call, self._call = self._call, None
        if call is not None:
            self._lease.release()
        self._job.join()

    def _start(self) -> None:
        with self._lock:
            call, self._call = self._call, None
            if call is not None:
                self._job.start(call, self._lease)


class _Iteration(Iterator[PreviewFrame | Result]):
    """An iteration is one loop over a stream. It dies when the loop is left."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        stream._job.is_left = False

    def __next__(self) -> PreviewFrame | Result:
        return next(self._stream)

    def __del__(self) -> None:
        self._stream._job.is_left = True


class _StopWhenCancelled(Callback):
    """Cancel the run at the end of a step, if nobody wants it any more.

    In a second loop of one call, ``Binding.cancel`` sees no run to cancel: it has ended with the
    first. Then the loop is ended from here.
    """

    def __init__(self, job: _Job) -> None:
        self._job = job

    def on_step_end(self, step: Step) -> None:
        if self._job.cancelled and not self._job.binding._cancel("leaving its stream"):
            raise GenerationCancelled(step.index, step.timestep)

    def on_report(self, run: Run) -> Mapping[str, int]:
        return {"dropped": self._job.dropped}

    def _name_in_messages(self) -> str:
        return "stream"


#: Those whose thread has not ended.
_jobs: set[_Job] = set()
_jobs_lock = threading.RLock()


class _Job:
    """A job is a run in a thread: what the thread and the stream share."""

    binding: Binding

    def __init__(self, backlog: int) -> None:
        self.cancelled = False
        #: Whether a loop over the stream was left before its end.
        self.is_left = False
        self._changed = threading.Condition()
        self._frames: deque[PreviewFrame] = deque(maxlen=backlog)
        #: How many previews nobody has taken in time.
        self.dropped = 0
        self._outcome: Result | BaseException | None = None
        self._ended = False
        self._thread: threading.Thread | None = None

    def start(self, call: Callable[[], Any], lease: Lease) -> None:
        if self.cancelled:
            lease.release()
            return
        # Context variables, and in Python 3.14 warning filters, are those of who iterates.
        context = contextvars.copy_context()
        thread = threading.Thread(
            target=context.run,
            args=(_generate, self, call, lease),
            name="unicb-stream",
            daemon=True,
        )
        with _jobs_lock:
            _jobs.add(self)
            self._thread = thread  # first: the run's callbacks may ask whose thread it is
            thread.start()

    def is_executing(self) -> bool:
        """Return whether the pipeline is in use: from the stream's beginning, unless it was dropped
        before its first item."""
        return not self._ended and (self._thread is not None or not self.cancelled)

    def is_leaving(self) -> bool:
        """Return whether nobody wants the stream any more, so that the next call waits for its end.
        Nobody can wait in the run's own thread."""
        unwanted = self.cancelled or self.is_left
        return unwanted and self._thread is not threading.current_thread()

    def drop(self, lease: Lease) -> None:
        """End the run: nobody refers to the stream any more."""
        self.cancel()
        if self._thread is None:
            lease.release()  # which has kept the pipeline

    def put(self, frame: PreviewFrame) -> None:
        with self._changed:
            self.dropped += len(self._frames) == self._frames.maxlen
            self._frames.append(frame)
            self._changed.notify_all()

    def finish(self, outcome: Result | BaseException | None) -> None:
        with _jobs_lock:
            _jobs.discard(self)
        with self._changed:
            self._outcome, self._ended = outcome, True
            self._changed.notify_all()

    def next(self) -> PreviewFrame | Result:
        if self._thread is None:
            raise StopIteration  # cancelled before it began
        with self._changed:
            try:
                self._changed.wait_for(lambda: self._ended or (self._frames and not self.cancelled))
            except BaseException:
                self.cancel()  # Ctrl-C: nobody waits for the rest
                raise
            if self._frames and not self.cancelled:
                return self._frames.popleft()
            outcome, self._outcome = self._outcome, None
        self.join()
        if self.cancelled or outcome is None:
            raise StopIteration
        if isinstance(outcome, Result):
            return outcome
        try:
            if isinstance(outcome, StopIteration):  # it would pass for the end of this iterator
                raise RuntimeError("the pipeline raised StopIteration") from outcome
            raise outcome
        finally:
            del outcome  # or this frame and the error's traceback would keep each other alive

    def cancel(self) -> None:
        self.cancelled = True  # seen at the end of the step, by _StopWhenCancelled

    def join(self, timeout: float | None = None) -> None:
        with _jobs_lock:  # which is held until it has started
            thread = self._thread
        # A callback, or the garbage collector in the middle of a step, may be who closes.
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)


def _generate(job: _Job, call: Callable[[], Any], lease: Lease) -> None:
    """Generate, in the stream's thread."""
    try:
        lease.wait()
        outcome = None if job.cancelled else Result(call())
    except BaseException as error:
        job.finish(error)
    else:
        job.finish(outcome)
    lease.release()


def _cancel_at_exit() -> None:
    """Cancel all runs: a daemon thread in a framework's code, in an interpreter that is going down,
    may crash."""
    deadline = time.monotonic() + _EXIT_TIMEOUT
    with _jobs_lock:
        jobs = list(_jobs)
    for job in jobs:
        job.cancel()
    for job in jobs:
        job.join(max(0.0, deadline - time.monotonic()))


atexit.register(_cancel_at_exit)
