"""Generate in an event loop, and await the result."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import threading
import traceback
from collections.abc import Sequence
from typing import Any

from unicb.binding import Binding, bind
from unicb.callback import Callback, PlainFunction
from unicb.errors import GenerationCancelled, UnicbError

_LOOK_SECONDS = 0.05


async def run_async(
    pipeline: Any,
    prompt: Any = None,
    callbacks: Binding | Sequence[Callback | PlainFunction] = (),
    *,
    executor: concurrent.futures.Executor | None = None,
    **kwargs: Any,
) -> Any:
    """Call a pipeline in a thread, and await what it returns.

    To cancel the task (also by ``asyncio.timeout``) is to cancel the run: at the end of its step it
    raises in its thread, nothing is decoded, and the task is over when the thread has done with
    the pipeline. Whatever else the pipeline raises is raised here.

    Example:
        >>> async def draw():
        ...     async with asyncio.timeout(60):  # cancels the run where it takes longer
        ...         return await run_async(pipe, "a red star", [CFGCutoff(0.4)])
        >>> import asyncio
        >>> asyncio.run(draw())[0].shape
        (8, 8, 4)

    Args:
        pipeline: as for :func:`unicb.bind`.
        prompt: the first positional argument of its call; None: there is none.
        callbacks: a binding of this pipeline, to interrupt or cancel it by, or callbacks to bind.
        executor: a pool of threads to run in; None is the event loop's own.
        kwargs: what else to call the pipeline with.

    Raises:
        asyncio.CancelledError: the task was cancelled.
        GenerationCancelled: the binding was.
        TypeError: as from :func:`unicb.bind`; or the executor is one of processes.
        PipelineBusyError: the pipeline, or a scheduler that it shares, has a run under way.
        UnicbError: likewise; or the binding is another pipeline's, or has ``on_sigint``, for which
            its pipeline would have to be called in the main thread.
    """
    binding = callbacks if isinstance(callbacks, Binding) else bind(pipeline, *callbacks)
    if binding.pipeline is not pipeline:
        raise UnicbError(f"{binding!r} is of another {type(pipeline).__name__}: bind() this one")
    if executor is not None and isinstance(executor, concurrent.futures.ProcessPoolExecutor):
        raise TypeError("run_async needs an executor of threads: another process has other models")
    positional = () if prompt is None else (prompt,)
    call = _Call(binding, positional, kwargs)
    within = contextvars.copy_context().run
    running = asyncio.get_running_loop().run_in_executor(executor, within, call)
    try:
        with binding._awaited():
            return await asyncio.shield(running)
    except asyncio.CancelledError:
        if call.prevent():
            running.cancel()
        else:
            await _ended(running, binding)
        raise


class _Call:
    """A ``_Call`` is a pipeline's call, which may be prevented until it begins.

    The future of an event loop would not tell: it says of one that has begun, too, that it was
    cancelled.
    """

    def __init__(
        self, binding: Binding, positional: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self._binding, self._positional, self._kwargs = binding, positional, kwargs
        self._begun, self._prevented = False, False
        self._lock = threading.Lock()

    def __call__(self) -> Any:
        with self._lock:
            if self._prevented:
                return None
            self._begun = True
        return self._binding(*self._positional, **self._kwargs)

    def prevent(self) -> bool:
        """Have it not begin. Returns False if it has."""
        with self._lock:
            self._prevented = not self._begun
            return self._prevented


async def _ended(running: asyncio.Future[Any], binding: Binding) -> None:
    """Cancel the run, and wait for its thread, however often the task is cancelled meanwhile."""
    while not running.done():
        # Which may find no run yet, or the first of a call's two loops.
        binding._cancel("cancelling its task")
        try:
            await asyncio.wait([running], timeout=_LOOK_SECONDS)
        except asyncio.CancelledError:
            continue
    error = running.exception()
    if isinstance(error, GenerationCancelled):
        # Who keeps the error would keep the loop's tensors on the device.
        traceback.clear_frames(error.__traceback__)
