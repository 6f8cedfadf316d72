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

    Cancelling the task (also by ``asyncio.timeout``) cancels the run: it ends with its current
    step, nothing is decoded, and the task ends once the thread no longer uses the pipeline. Any
    other error of the pipeline is raised here.

    Example:
        >>> async def draw():
        ...     async with asyncio.timeout(60):  # cancels the run where it takes longer
        ...         return await run_async(pipe, "a red star", [CFGCutoff(0.4)])
        >>> import asyncio
        >>> asyncio.run(draw())[0].shape
        (8, 8, 4)

    Args:
        pipeline: the pipeline, as for :func:`unicb.bind`.
        prompt: the first positional argument of the pipeline's call; None: no positional argument.
        callbacks: callbacks to bind; or a binding of this pipeline, by which to interrupt or
            cancel.
        executor: the pool of threads to run in; None: the event loop's own.
        kwargs: keyword arguments of the pipeline's call.

    Raises:
        asyncio.CancelledError: the task was cancelled.
        GenerationCancelled: the run was cancelled by its binding.
        TypeError: as from :func:`unicb.bind`; or the executor is a pool of processes.
        PipelineBusyError: the pipeline, or a scheduler that it shares, has a run under way.
        UnicbError: as from :func:`unicb.bind`; or the binding belongs to another pipeline, or has
            ``on_sigint``, which works in the main thread only.
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

    An event loop's future cannot say whether the call has begun: it calls itself cancelled either
    way.
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
        """Prevent the call from beginning. Returns False if it has begun."""
        with self._lock:
            self._prevented = not self._begun
            return self._prevented


async def _ended(running: asyncio.Future[Any], binding: Binding) -> None:
    """Cancel the run, and wait for its thread, however often the task is cancelled meanwhile."""
    while not running.done():
        # Again and again: there may be no run yet, or this is the first of a call's two loops.
        binding._cancel("cancelling its task")
        try:
            await asyncio.wait([running], timeout=_LOOK_SECONDS)
        except asyncio.CancelledError:
            continue
    error = running.exception()
    if isinstance(error, GenerationCancelled):
        # Otherwise the error's traceback would keep the loop's tensors alive on the device.
        traceback.clear_frames(error.__traceback__)
