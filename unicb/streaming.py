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


@dataclass(frozen=True, eq=False)  # comparing arrays or tensors gives no truth value
class Result:
    """A result is the last item of a :class:`Stream`. It equals only itself.

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

    ``async for`` gets the same items, without blocking the event loop. Errors in the arguments are
    raised here, before the first item.

    The pipeline runs in a thread of its own and never waits for the loop over the stream: previews
    that are not taken in time are dropped, the oldest first. Progress items and the result are
    never dropped.

    Args:
        pipeline: the pipeline, as for :func:`unicb.bind`.
        args, kwargs: the arguments of the pipeline's call.
        every, max_fps, size, batch, source, factors, decoder: which steps to show, and how, as for
            :class:`unicb.Preview`.
        video_frames: the argument ``frames`` of :class:`unicb.Preview`, renamed because some
            pipelines take ``frames`` themselves.
        backlog: how many previews may wait to be taken, from 1. With 1, the next preview is always
            the newest. To get every preview, give at least the number of steps.
        progress: True: also yield a :class:`unicb.callbacks.ProgressState` for every step when it
            ends, before its preview.
        callbacks: further callbacks, called before the preview is made.

    Raises:
        PipelineBusyError: the pipeline, or a scheduler that it shares, has a run under way or
            belongs to another stream.
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
        Background(job.put, maxsize=None),  # `put` never waits: it drops excess previews itself
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

    Nothing runs before the first item is asked for, but the pipeline is reserved for the stream
    from the beginning. After the last item, the thread has ended and the pipeline is free. An error
    of the pipeline is raised in place of the result, with its traceback.

    Leaving a stream early cancels it: the run and the thread end at the end of the current step. A
    stream is left when nobody refers to it any more; when an interrupt such as Ctrl-C ends the wait
    for an item; and when a loop over it was left by ``break`` or an error and the pipeline is then
    called again or given to another stream, which waits for the end by itself. To wait at the end
    of a block, write ``with stream(...) as events:``.

    Leaving an ``async for`` cancels at once, and so does cancelling a task that waits for an item:
    that task ends when the thread has ended. ``async with stream(...) as events:`` waits for the
    thread's end in every case, and never blocks the event loop.

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
        # The thread refers to the job and not to the stream, so that a dropped stream is collected.
        # That may happen at any point of any code, so `drop` waits for no run.
        weakref.finalize(self, job.drop, lease).atexit = False

    def __iter__(self) -> Iterator[Event]:
        return _Iteration(self)

    def __next__(self) -> Event:
        """Wait for the next item and return it: a preview or progress, or at last the result.

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
        """Stop at the end of the current step, and decode: the result comes early.

        May be called in any thread. ``picture`` and the errors are those of
        :meth:`unicb.Binding.interrupt`. Returns whether there is a run to interrupt.
        """
        return self._job.binding.interrupt(picture=picture)

    @property
    def report(self) -> Report:
        """Say what the run has done so far; see :attr:`unicb.Binding.report`. May be read in any
        thread."""
        return self._job.binding.report

    def cancel(self) -> None:
        """End the run at the end of its current step; no further item comes. Does not wait. May be
        called in any thread."""
        self._job.cancel()

    def close(self) -> None:
        """Cancel, and wait until the run and its thread have ended. May be called in any thread."""
        self._leave()
        self._job.join()

    async def aclose(self) -> None:
        """Cancel, and await the end of the run and its thread.

        A task that is cancelled meanwhile raises CancelledError only after that end, when the
        pipeline is free.
        """
        from unicb._awaited_stream import until_ended

        self._leave()
        await until_ended(self._job)

    def _leave(self) -> None:
        self._job.cancel()
        with self._lock:  # not while `_start` starts the thread
            call, self._call = self._call, None
        if call is not None:
            self._lease.release()

    def _start(self) -> None:
        with self._lock:
            call, self._call = self._call, None
            if call is not None:
                self._job.start(call, self._lease)


class _Iteration(Iterator[Event]):
    """An iteration is one loop over a stream. It is collected when the loop is left."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        stream._job.is_left = False

    def __next__(self) -> Event:
        return next(self._stream)

    def __del__(self) -> None:
        self._stream._job.is_left = True


class _AsyncIteration(AsyncIterator[Event]):
    """An iteration is one ``async for`` over a stream. It is collected when the loop is left, where
    nothing can be awaited: so it cancels the run, and the pipeline's next user waits for the
    end."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    async def __anext__(self) -> Event:
        return await self._stream.__anext__()

    def __del__(self) -> None:
        self._stream._job.cancel()


class _StopWhenCancelled(Callback):
    """Cancel the run at the end of a step, once the stream is cancelled.

    In the second loop of a call, ``Binding.cancel`` finds no run, which has ended with the first
    loop. This callback then ends the loop.
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


#: Jobs whose thread has not ended.
_jobs: set[_Job] = set()
_jobs_lock = threading.RLock()


class _Job:
    """A job is a run in a thread: what the thread and the stream share."""

    binding: Binding

    def __init__(self, backlog: int) -> None:
        self.cancelled = False
        #: True once a loop over the stream was left before its end.
        self.is_left = False
        self._changed = threading.Condition()
        self._backlog = backlog
        self._events: deque[PreviewFrame | ProgressState] = deque()
        self._watchers: set[Callable[[], object]] = set()
        #: How many previews were dropped because they were not taken in time.
        self.dropped = 0
        self._outcome: Result | BaseException | None = None
        self._ended = False
        self._thread: threading.Thread | None = None

    def start(self, call: Callable[[], Any], lease: Lease) -> None:
        if self.cancelled:
            lease.release()
            return
        # The thread gets the iterating thread's context variables (in Python 3.14 warning filters,
        # too).
        context = contextvars.copy_context()
        thread = threading.Thread(
            target=context.run,
            args=(_generate, self, call, lease),
            name="unicb-stream",
            daemon=True,
        )
        with _jobs_lock:
            _jobs.add(self)
            self._thread = thread  # before it starts: the run's callbacks may look at it
            thread.start()

    @property
    def state(self) -> str:
        """Return in a few words how far the run is."""
        if self._thread is None:
            return "closed" if self.cancelled else "not begun"
        state = self.binding.state
        if self._ended and state not in ("pending", "running"):
            return state
        done = self.binding.step
        return "under way" if done is None else f"under way, {done + 1} steps done"

    def is_executing(self) -> bool:
        """Return whether the stream holds the pipeline: from its beginning to the end of the run,
        unless it was dropped before its first item."""
        return not self._ended and (self._thread is not None or not self.cancelled)

    def is_leaving(self) -> bool:
        """Return whether the stream was left, so that the pipeline's next call waits for the run's
        end; False in the run's own thread, which cannot wait for itself."""
        unwanted = self.cancelled or self.is_left
        return unwanted and self._thread is not threading.current_thread()

    def drop(self, lease: Lease) -> None:
        """End the run: nobody refers to the stream any more."""
        self.cancel()
        if self._thread is None:
            lease.release()  # no thread will do it

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
        for tell in tuple(self._watchers):  # garbage collection may remove one meanwhile
            tell()

    @contextmanager
    def watched(self, tell: Callable[[], object]) -> Iterator[None]:
        """Call ``tell``, in the run's threads, at each item and at the end, while the block is
        open."""
        with self._changed:
            self._watchers.add(tell)
        try:
            yield
        finally:
            with self._changed:
                self._watchers.discard(tell)

    def is_alive(self) -> bool:
        """Return whether the job's thread is alive and is not the calling thread."""
        with _jobs_lock:  # held until the thread has started
            thread = self._thread
        return thread is not None and thread.is_alive() and thread is not threading.current_thread()

    def has_ended(self) -> bool:
        """Return whether no further item will be put."""
        return self._ended or self._thread is None  # None: cancelled before it began

    def has_events(self) -> bool:
        """Return whether an item is waiting to be taken."""
        return bool(self._events) and not self.cancelled

    def take(self) -> Event | None:
        """Take the next preview or progress; None if none is waiting."""
        with self._changed:
            return self._events.popleft() if self.has_events() else None

    def next(self) -> Event:
        with self._changed:
            try:
                with self.binding._awaited():
                    self._changed.wait_for(lambda: self.has_ended() or self.has_events())
            except BaseException:
                self.cancel()  # Ctrl-C, for example: nobody waits for the rest
                raise
            event = self.take()
        return self.last() if event is None else event

    def last(self) -> Result:
        """Return the result of a run that has ended; wait for its thread."""
        with self._changed:
            outcome, self._outcome = self._outcome, None
        self.join()
        if self.cancelled or outcome is None:
            raise StopIteration
        if isinstance(outcome, Result):
            return outcome
        try:
            if isinstance(outcome, StopIteration | StopAsyncIteration):
                # A StopIteration raised here would look like the end of the stream.
                raise RuntimeError(f"the pipeline raised {type(outcome).__name__}") from outcome
            raise outcome
        finally:
            del outcome  # otherwise this frame and the error's traceback keep each other alive

    def cancel(self) -> None:
        self.cancelled = True  # seen at the end of the step, by _StopWhenCancelled

    def join(self, timeout: float | None = None) -> None:
        with _jobs_lock:  # held until the thread has started
            thread = self._thread
        # `close` may be called in the run's own thread, by a callback or the garbage collector.
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
    """Cancel all runs before the interpreter exits: a daemon thread still in a framework's code may
    crash then."""
    deadline = time.monotonic() + _EXIT_TIMEOUT
    with _jobs_lock:
        jobs = list(_jobs)
    for job in jobs:
        job.cancel()
    for job in jobs:
        job.join(max(0.0, deadline - time.monotonic()))


atexit.register(_cancel_at_exit)
