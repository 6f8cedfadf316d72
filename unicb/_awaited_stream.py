"""Await what a stream's run has to say, in an event loop, which is never held up."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unicb.streaming import Event, _Job

#: A run that has ended has a thread for a moment yet, which lets go of what it had.
_LOOK_SECONDS = 0.001


async def next_event(job: _Job) -> Event:
    """Await the next item, or at last the result. With the task, the run is cancelled, too.

    Raises:
        StopAsyncIteration: there is none.
        Exception: whatever the pipeline's call raised.
    """
    try:
        while True:
            has_ended = job.has_ended()  # first: then nothing is put after the look
            if (event := job.take()) is not None:
                return event
            if has_ended:
                break
            await _change_of(job)
        await until_ended(job)
    except asyncio.CancelledError:
        job.cancel()
        await until_ended(job)
        raise
    except BaseException:
        job.cancel()  # the coroutine is thrown away, and can await nothing any more
        raise
    try:
        return job.last()
    except StopIteration:
        raise StopAsyncIteration from None


async def until_ended(job: _Job) -> None:
    """Wait for the end of the run and its thread, however often the task is cancelled meanwhile.

    Raises:
        asyncio.CancelledError: in the end, where it was.
    """
    cancelled = None
    while job.is_alive():
        try:
            if job.has_ended():
                await asyncio.sleep(_LOOK_SECONDS)
            else:
                await _change_of(job)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled


async def _change_of(job: _Job) -> None:
    """Wait for an item, or for the end, if there is none now."""
    loop, changed = asyncio.get_running_loop(), asyncio.Event()

    def tell() -> None:
        try:
            loop.call_soon_threadsafe(changed.set)
        except RuntimeError:  # the event loop is closed: nobody will ever take an item
            job.cancel()

    with job.watched(tell):
        if not (job.has_ended() or job.has_events()):
            await changed.wait()
