"""Generate as an iterator, for ``for`` and ``async for``: previews while it runs, and the progress
of every step where one asks for it, then what the pipeline returned."""

from __future__ import annotations

import atexit
import contextvars
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from unicb.binding import Binding, bind
from unicb.callback import Callback, PlainFunction
from unicb.callbacks.preview import Preview, Source
from unicb.callbacks.timing import Progress, ProgressState
from unicb.checks import flag, whole_number
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

    Example:
        >>> *frames, result = stream(pipe, "a red star", num_inference_steps=4, backlog=4)
        >>> len(frames), result.output[0].shape
        (4, (8, 8, 4))
    """

    output: Any

    def __repr__(self) -> str:
        return f"<Result: {type(self.output).__name__}>"


#: An item of a :class:`Stream`. A ProgressState comes only where ``progress=True`` asks for it.
Event: TypeAlias = PreviewFrame | ProgressState | Result


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
    progress: bool = False,
    callbacks: Sequence[Callback | PlainFunction] = (),
    **kwargs: Any,
) -> Stream:
    """Generate, and get the previews as items of an iterator; its last item is the result.

    Example:
        >>> for event in stream(pipe, "a red star", num_inference_steps=30, size=256):
        ...     match event:
        ...         case PreviewFrame(step=step, images=images):
        ...             shown = images[0]  # draw it
        ...         case Result(output=output):
        ...             picture = output[0]

    ``async for`` gets the same items, and the event loop goes on meanwhile. What is refused is
    refused here, before there is anything to iterate.

    The pipeline runs in a thread of its own and never waits for who iterates: previews that are
    not taken in time are dropped, the oldest first. Neither the result nor the progress of a step
    is ever dropped.

    Args:
        pipeline: as for :func:`unicb.bind`.
        args, kwargs: what to call the pipeline with, besides.
        every, max_fps, size, batch, source, factors, decoder: which steps to show, and how, as for
            :class:`unicb.Preview`.
        video_frames: its ``frames``; there are pipelines that take ``frames`` themselves.
        backlog: how many previews wait for who iterates, from 1. With 1 it is always the newest
            that is next. To get each and every one, give at least the number of steps.
        progress: whether there is a :class:`unicb.callbacks.ProgressState` for every step besides,
            as it ends, and so before its preview.
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
    counted = [Progress(job.put)] if flag("progress", progress) else []
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
    job.binding = bind(pipeline, *callbacks, *counted, preview, _StopWhenCancelled(job))
    lease = job.binding._lease(job)
    return Stream(job, partial(job.binding._call, lease, args, kwargs), lease)


class Stream(Iterator[Event], AsyncIterator[Event]):
    """A stream is a generation under way, for ``for`` or ``async for``; made by :func:`stream`.

    Nothing runs before the first item is asked for; but the pipeline is this stream's from the
    beginning. After the last item there is no thread any more, and the pipeline is free. An error
    of the pipeline is raised in place of the result, with its traceback.

    To leave it early is to cancel: the run ends at the end of the step that it is in, and so does
    the thread. It is left once nobody refers to it, once an interrupt such as Ctrl-C ends the
    waiting for an item, and once a loop over it was left by ``break`` or by an error and the
    pipeline is called again, or given to a next stream; that one waits by itself. Who wants to
    wait writes ``with stream(...) as events:``.

    An ``async for`` that is left cancels at once, and so does a task that is cancelled while it
    waits for an item: this task is over when the thread has ended. ``async with stream(...) as
    events:`` waits for that whatever the reason is, and never holds up the event loop.

    Example:
        >>> with stream(pipe, "a red star", num_inference_steps=1000) as events:
        ...     for event in events:
        ...         break  # the run is cancelled
        >>> list(events)
        []
    """

    def __init__(self, job: _Job, call: Callable[[], Any], lease: Lease) -> None:
        self._job = job
        self._call: Callable[[], Any] | None = call
        self._lease = lease
        self._lock = threading.Lock()
        # The thread knows the job and not the stream, so that a stream that is dropped dies. That
        # may be in the middle of anything, so it waits for nobody's run.
        weakref.finalize(self, job.drop, lease).atexit = False

    def __iter__(self) -> Iterator[Event]:
        return _Iteration(self)

    def __next__(self) -> Event:
        """Return the next preview or progress, or at last the result; wait for it.

        Raises:
            Exception: whatever the pipeline's call raised.
        """
        self._start()
        return self._job.next()

    def __aiter__(self) -> AsyncIterator[Event]:
        return _AsyncIteration(self)

    async def __anext__(self) -> Event:
        """Await the next item, as :meth:`__next__` waits for it.

        Raises:
            asyncio.CancelledError: the task was cancelled, and so is the run, which has ended.
            Exception: whatever the pipeline's call raised.
        """
        from unicb._awaited_stream import next_event

        self._start()
        return await next_event(self._job)

    def __repr__(self) -> str:
        return f"<Stream of {type(self._lease.pipeline).__name__}: {self._job.state}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

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
        self._leave()
        self._job.join()

    async def aclose(self) -> None:
        """Cancel, and await the end of the run and its thread.

        A task that is cancelled meanwhile is so after that end: who awaits it may use the pipeline.
        """
        from unicb._awaited_stream import until_ended

        self._leave()
        await until_ended(self._job)

    def _leave(self) -> None:
        self._job.cancel()
        with self._lock:  # not while the thread is being started
            call, self._call = self._call, None
        if call is not None:
            self._lease.release()

    def _start(self) -> None:
        with self._lock:
            call, self._call = self._call, None
            if call is not None:
                self._job.start(call, self._lease)


class _Iteration(Iterator[Event]):
    """An iteration is one loop over a stream. It dies when the loop is left."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        stream._job.is_left = False

    def __next__(self) -> Event:
        return next(self._stream)

    def __del__(self) -> None:
        self._stream._job.is_left = True


class _AsyncIteration(AsyncIterator[Event]):
    """An iteration is one ``async for`` over a stream. It dies when the loop is left, where nothing
    can be awaited: so the run is cancelled, and whoever wants the pipeline next waits."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    async def __anext__(self) -> Event:
        return await self._stream.__anext__()

    def __del__(self) -> None:
        self._stream._job.cancel()


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
        self._backlog = backlog
        self._events: deque[PreviewFrame | ProgressState] = deque()
        self._watchers: set[Callable[[], object]] = set()
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

    @property
    def state(self) -> str:
        """Return in a few words how far it is."""
        if self._thread is None:
            return "closed" if self.cancelled else "not begun"
        state = self.binding.state
        if self._ended and state not in ("pending", "running"):
            return state
        done = self.binding.step
        return "under way" if done is None else f"under way, {done + 1} steps done"

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

    def put(self, event: PreviewFrame | ProgressState) -> None:
        with self._changed:
            self._events.append(event)
            if isinstance(event, PreviewFrame):
                frames = [kept for kept in self._events if isinstance(kept, PreviewFrame)]
                if len(frames) > self._backlog:
                    self._events.remove(frames[0])
                    self.dropped += 1
            self._tell()

    def finish(self, outcome: Result | BaseException | None) -> None:
        with _jobs_lock:
            _jobs.discard(self)
        with self._changed:
            self._outcome, self._ended = outcome, True
            self._tell()

    def _tell(self) -> None:
        self._changed.notify_all()
        for tell in tuple(self._watchers):  # a collection of garbage may end one meanwhile
            tell()

    @contextmanager
    def watched(self, tell: Callable[[], object]) -> Iterator[None]:
        """Have ``tell`` called, in the run's threads, at each item and at the end."""
        with self._changed:
            self._watchers.add(tell)
        try:
            yield
        finally:
            with self._changed:
                self._watchers.discard(tell)

    def is_alive(self) -> bool:
        """Return whether it has a thread, other than the one that asks."""
        with _jobs_lock:  # which is held until it has started
            thread = self._thread
        return thread is not None and thread.is_alive() and thread is not threading.current_thread()

    def has_ended(self) -> bool:
        """Return whether no further item will be put."""
        return self._ended or self._thread is None  # which is cancelled before it began

    def has_events(self) -> bool:
        """Return whether there is an item to take."""
        return bool(self._events) and not self.cancelled

    def take(self) -> Event | None:
        """Take the next item, but for the last; None if there is none now."""
        with self._changed:
            return self._events.popleft() if self.has_events() else None

    def next(self) -> Event:
        with self._changed:
            try:
                with self.binding._awaited():
                    self._changed.wait_for(lambda: self.has_ended() or self.has_events())
            except BaseException:
                self.cancel()  # Ctrl-C: nobody waits for the rest
                raise
            event = self.take()
        return self.last() if event is None else event

    def last(self) -> Result:
        """Return the last item, of a run that has ended; wait for its thread."""
        with self._changed:
            outcome, self._outcome = self._outcome, None
        self.join()
        if self.cancelled or outcome is None:
            raise StopIteration
        if isinstance(outcome, Result):
            return outcome
        try:
            if isinstance(outcome, StopIteration | StopAsyncIteration):
                # It would pass for the end of this iterator.
                raise RuntimeError(f"the pipeline raised {type(outcome).__name__}") from outcome
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
        try:
            lease.wait()
            outcome = None if job.cancelled else Result(call())
        except BaseException as error:
            job.finish(error)
        else:
            job.finish(outcome)
    finally:
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
