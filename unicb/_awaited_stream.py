"""Await a stream's items in an event loop, without ever blocking that loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unicb.streaming import Event, _Job

#: Seconds between looks at the thread of an ended run: it still frees its objects for a moment.
_LOOK_SECONDS = 0.001


async def next_event(job: _Job) -> Event:
    """Await the next item; the last one is the result. Cancelling the task cancels the run, too.

    Raises:
        StopAsyncIteration: the stream has no further item.
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
    """Wait until the run and its thread have ended, even if the task is cancelled meanwhile.

    Raises:
        asyncio.CancelledError: the task was cancelled while it waited; raised after the end.
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
    """Wait until there is an item, or the run has ended."""
    loop, changed = asyncio.get_running_loop(), asyncio.Event()

    def tell() -> None:
        try:
            loop.call_soon_threadsafe(changed.set)
        except RuntimeError:  # the event loop is closed: nobody will ever take an item
            job.cancel()

    with job.watched(tell):
        if not (job.has_ended() or job.has_events()):
            await changed.wait()
