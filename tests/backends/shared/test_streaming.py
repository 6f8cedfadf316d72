"""A stream in an event loop, on the framework: bits of a plain call, and nothing left behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from here import backend, harness

from unicb import CFGCutoff, Interrupt, PreviewFrame, bind
from unicb.callbacks import ProgressState
from unicb.streaming import Event, Result, Stream, stream
from unicb.testing import Case

WAIT = 120.0
CASE = Case("text2img", prompts=2, steps=5)


class Hold:
    """A step-end function that notes the steps, and holds the run at the end of one."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.steps: list[int] = []
        self.there, self.go_on = threading.Event(), threading.Event()

    def __call__(self, _pipe: Any, step: int, *_: Any) -> None:
        self.steps.append(step)
        if step == self.at:
            self.there.set()
            assert self.go_on.wait(WAIT)

    async def reached(self) -> None:
        while not self.there.is_set():
            await asyncio.sleep(0.001)


async def all_of(events: Stream) -> list[Event]:
    return [event async for event in events]


def begin(pipe: Any, *callbacks: Any, steps: int = CASE.steps, **how: Any) -> Stream:
    """The case's call of the pipeline, as a stream."""
    keywords = {**harness.arguments(CASE), "guidance_scale": CASE.guidance_scale}
    keywords |= {"num_inference_steps": steps, "generator": harness.generator()}
    return stream(pipe, callbacks=callbacks, output_type="latent", **keywords, **how)


def run(main: Callable[[], Any]) -> Any:
    threads = set(threading.enumerate())
    found = asyncio.run(asyncio.wait_for(main(), WAIT))
    assert [thread for thread in set(threading.enumerate()) - threads if thread.is_alive()] == []
    return found


def latents(events: list[Event]) -> Any:
    last = events[-1]
    assert isinstance(last, Result)
    return backend.ops.to_numpy(last.output[0])


def test_items_and_bits() -> None:
    pipe = harness.build(CASE.kind)
    plain = harness.run(pipe, CASE)
    traces = harness.traces(pipe)
    cut = harness.run(pipe, CASE, **bind(pipe, CFGCutoff(0.4)))
    assert not np.array_equal(plain, cut)

    async def main() -> list[Event]:
        return await all_of(begin(pipe, CFGCutoff(0.4), progress=True, backlog=99))

    events = run(main)
    steps = list(range(CASE.steps))
    for kind in (ProgressState, PreviewFrame):
        assert [event.step for event in events if isinstance(event, kind)] == steps
    np.testing.assert_array_equal(latents(events), cut)
    assert harness.traces(pipe) == traces
    np.testing.assert_array_equal(harness.run(pipe, CASE), plain)


@pytest.mark.parametrize("at", [0, 2])
def test_cancelled_task(at: int) -> None:
    """It is over when the run is, at the end of the step that it was in."""
    pipe = harness.build(CASE.kind)
    plain = harness.run(pipe, CASE)
    traces = harness.traces(pipe)
    hold = Hold(at)

    async def main() -> None:
        events = begin(pipe, CFGCutoff(cutoff_step_index=0), hold, steps=20)
        task = asyncio.create_task(all_of(events))
        del events
        await hold.reached()
        task.cancel()
        await asyncio.sleep(0.01)
        assert not task.done()
        hold.go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert harness.traces(pipe) == traces
        np.testing.assert_array_equal(harness.run(pipe, CASE), plain)

    run(main)
    assert hold.steps == list(range(at + 1))


def test_interrupt_from_the_event_loop() -> None:
    """The result is that of a run that is told beforehand."""
    pipe = harness.build(CASE.kind)
    expected = harness.run(pipe, CASE, **bind(pipe, Interrupt(2)))

    hold = Hold(2)

    async def main() -> list[Event]:
        events = begin(pipe, hold)
        task = asyncio.create_task(all_of(events))
        await hold.reached()
        assert events.interrupt()
        hold.go_on.set()
        return await task

    np.testing.assert_array_equal(latents(run(main)), expected)
