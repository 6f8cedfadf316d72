"""async for over a stream: the same items, and an event loop that goes on; and progress."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import subprocess
import sys
import threading
import time
from collections.abc import Coroutine
from typing import Any

import pytest
from sink_helpers import LONG, no_thread_is_left  # noqa: F401
from test_stream import ALL, ENDLESS, Gate, TwoParts, in_thread, steps_of

from unicb import GenerationCancelled, PipelineBusyError, PreviewFrame, bind, sibling, streaming
from unicb.callbacks import Progress, ProgressState
from unicb.streaming import Event, Result, Stream, stream
from unicb_numpy.pipelines import ToyPipeline


def run(main: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(main, LONG))


async def until(event: threading.Event) -> None:
    while not event.is_set():
        await asyncio.sleep(0.001)


async def all_of(events: Stream) -> list[Event]:
    return [event async for event in events]


def of_kind(events: list[Any], kind: type) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


# --- what comes ------------------------------------------------------------------------------


def test_the_items_are_those_of_for(pipe: ToyPipeline) -> None:
    how: dict[str, Any] = {"num_inference_steps": 7, "seed": 3, "backlog": ALL, "progress": True}
    *before, result = stream(pipe, ["x", "y"], **how)
    *items, last = run(all_of(stream(pipe, ["x", "y"], **how)))
    assert steps_of(items) == list(range(7))
    for kind in (PreviewFrame, ProgressState):  # a preview may come after the progress of the next
        pairs = zip(of_kind(items, kind), of_kind(before, kind), strict=True)
        for event, other in pairs:
            assert event.step == other.step
            if kind is PreviewFrame:
                assert [i.tobytes() for i in event.images] == [i.tobytes() for i in other.images]
    assert (last.output == result.output).all()  # type: ignore[union-attr]


def test_thread_has_ended_when_the_last_item_comes(
    pipe: ToyPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the event loop goes on until it has."""
    ended, beats = threading.Event(), 0

    def slow_to_end(*arguments: Any) -> None:
        generate(*arguments)
        time.sleep(0.2)  # for a stream that does not wait to be caught
        ended.set()

    generate = streaming._generate
    monkeypatch.setattr(streaming, "_generate", slow_to_end)

    async def beat() -> None:
        nonlocal beats
        while not ended.is_set():
            beats += 1
            await asyncio.sleep(0.001)

    async def main() -> None:
        beating = asyncio.create_task(beat())
        *_, last = await all_of(stream(pipe, "x"))
        assert isinstance(last, Result)
        assert ended.is_set()
        await beating

    run(main())
    assert beats > 20


def test_the_event_loop_goes_on_while_an_item_is_waited_for(pipe: ToyPipeline) -> None:
    """It is the event loop that lets the run go on: held up, it never would."""
    gate = Gate(2)

    async def main() -> list[Event]:
        task = asyncio.create_task(all_of(stream(pipe, "x", callbacks=[gate])))
        await until(gate.reached)
        gate.open.set()
        return await task

    assert isinstance(run(main())[-1], Result)


def test_anext(pipe: ToyPipeline) -> None:
    async def main() -> None:
        events = stream(pipe, "x", num_inference_steps=3, backlog=ALL)
        assert [(await anext(events)).step for _ in range(3)] == [0, 1, 2]  # type: ignore[union-attr]
        assert isinstance(await anext(events), Result)
        for _ in range(2):
            with pytest.raises(StopAsyncIteration):
                await anext(events)

    run(main())


def test_context_variables_are_those_of_the_task(pipe: ToyPipeline) -> None:
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="nobody")
    seen: list[str] = []

    async def main() -> None:
        name.set("me")
        await all_of(stream(pipe, "x", num_inference_steps=1, callbacks=[look]))

    def look(*_: Any) -> None:
        seen.append(name.get())

    run(main())
    assert seen == ["me"]


def test_two_at_a_time(pipe: ToyPipeline) -> None:
    """Each holds the other up until both are under way."""
    gates = [Gate(1), Gate(1)]

    async def main() -> list[Event]:
        streams = [
            stream(each, "x", callbacks=[gate])
            for each, gate in zip((pipe, sibling(pipe)), gates, strict=True)
        ]
        tasks = [asyncio.create_task(all_of(each)) for each in streams]
        for gate in gates:
            await until(gate.reached)
        for gate in gates:
            gate.open.set()
        return [(await task)[-1] for task in tasks]

    plain = pipe("x")
    for last in run(main()):
        assert (last.output == plain).all()


# --- progress --------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [1, 2])
def test_progress_is_of_every_step_whatever_previews_are_dropped(order: int) -> None:
    pipe, gate = ToyPipeline(order), Gate(0)
    events = stream(pipe, "x", num_inference_steps=9, progress=True, callbacks=[gate])
    first: list[Any] = []
    taker = in_thread(lambda: first.append(next(events)))
    assert gate.reached.wait(LONG)
    gate.open.set()
    taker.join(LONG)
    assert gate.gone()  # with one item taken
    items = [*first, *events]
    count = pipe.num_timesteps
    states = [event for event in items if isinstance(event, ProgressState)]
    assert [state.step for state in states] == list(range(count))
    assert {state.num_timesteps for state in states} == {count}
    assert states[-1].remaining == 0
    assert steps_of(items) == [count - 1]
    assert isinstance(items[-1], Result)


def test_a_step_has_its_progress_before_its_preview(pipe: ToyPipeline) -> None:
    ended: set[int] = set()
    for event in stream(pipe, "x", progress=True, backlog=ALL):
        match event:
            case ProgressState(step=step):
                ended.add(step)
            case PreviewFrame(step=step):
                assert step in ended
    assert len(ended) == 10


def test_progress_comes_only_where_it_is_asked_for(pipe: ToyPipeline) -> None:
    assert {type(event) for event in stream(pipe, "x")} == {PreviewFrame, Result}
    with pytest.raises(TypeError, match="progress must be"):
        stream(pipe, "x", progress="yes")  # type: ignore[arg-type]


def test_progress_beside_one_of_ones_own(pipe: ToyPipeline) -> None:
    own: list[ProgressState] = []
    events = list(stream(pipe, "x", progress=True, callbacks=[Progress(own.append)]))
    states = [event for event in events if isinstance(event, ProgressState)]
    assert [state.step for state in states] == [state.step for state in own] == list(range(10))


# --- refusals and errors ---------------------------------------------------------------------


def test_refused_before_there_is_anything_to_await(pipe: ToyPipeline) -> None:
    """A service has sent nothing yet, and can answer 409."""

    async def main() -> None:
        first = stream(pipe, "x")
        with pytest.raises(PipelineBusyError):
            stream(pipe, "y")
        await first.aclose()
        assert isinstance((await all_of(stream(pipe, "y")))[-1], Result)

    run(main())


@pytest.mark.parametrize(
    ("raised", "seen"),
    [
        (LookupError("no such thing"), LookupError),
        (SystemExit(3), SystemExit),
        (StopAsyncIteration(), RuntimeError),
        (StopIteration(), RuntimeError),
    ],
)
def test_what_the_pipeline_raises_is_raised(
    pipe: ToyPipeline, raised: BaseException, seen: type[BaseException]
) -> None:
    def explode(_pipe: Any, index: int, *_: Any) -> None:
        if index == 2:
            raise raised

    async def main() -> None:
        events = stream(pipe, "x", backlog=ALL, callbacks=[explode])
        assert [(await anext(events)).step for _ in range(2)] == [0, 1]  # type: ignore[union-attr]
        with pytest.raises(seen):
            await anext(events)
        assert await all_of(events) == []

    run(main())
    assert isinstance(list(stream(pipe, "x"))[-1], Result)


def test_cancelled_by_somebody_else_is_an_error(pipe: ToyPipeline) -> None:
    def cancel(_pipe: Any, index: int, *_: Any) -> None:
        raise GenerationCancelled(index, 0.0)

    with pytest.raises(GenerationCancelled):
        run(all_of(stream(pipe, "x", callbacks=[cancel])))


# --- leaving early ---------------------------------------------------------------------------


def test_cancelled_task_is_over_when_the_run_has_ended(pipe: ToyPipeline) -> None:
    """However often it is cancelled meanwhile."""
    plain, gate = pipe("x"), Gate(3)

    async def main() -> None:
        events = stream(pipe, "x", num_inference_steps=ENDLESS, callbacks=[gate])
        task = asyncio.create_task(all_of(events))
        await until(gate.reached)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0.005)
            assert not task.done()
        gate.open.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()
        # Not a moment later: whoever awaited it may use the pipeline.
        assert gate.ended.is_set()
        assert not gate.thread.is_alive()  # type: ignore[union-attr]
        assert (bind(pipe)("x") == plain).all()

    run(main())
    assert gate.steps == [0, 1, 2, 3]


def test_timeout(pipe: ToyPipeline) -> None:
    gate = Gate(0)

    async def expire() -> None:
        async with asyncio.timeout(None) as limit:
            async for _ in stream(pipe, "x", num_inference_steps=ENDLESS, callbacks=[gate]):
                limit.reschedule(asyncio.get_running_loop().time())

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await expire()
        await asyncio.to_thread(gate.gone)

    gate.open.set()
    run(main())
    assert gate.ended.is_set()
    assert len(gate.steps) < ENDLESS


async def leave_by_break(events: Stream) -> None:
    async for _ in events:
        break


async def leave_by_error(events: Stream) -> None:
    with contextlib.suppress(LookupError):
        async for _ in events:
            raise LookupError


async def leave_by_return(events: Stream) -> None:
    async for _ in events:
        return


@pytest.mark.parametrize("leave", [leave_by_break, leave_by_error, leave_by_return])
def test_leaving_the_loop_cancels_though_the_stream_has_a_name(
    pipe: ToyPipeline, leave: Any
) -> None:
    plain, gate = pipe("x"), Gate(3)

    async def main() -> None:
        events = stream(pipe, "x", num_inference_steps=ENDLESS, callbacks=[gate])
        await leave(events)
        second = stream(pipe, "x", callbacks=[lambda *_: ended.append(gate.ended.is_set())])
        gate.open.set()
        assert ((await all_of(second))[-1].output == plain).all()  # type: ignore[union-attr]
        assert await all_of(events) == []

    ended: list[bool] = []
    run(main())
    assert all(ended)  # the second one has waited by itself
    assert len(ended) == 10
    assert gate.steps[-1] <= 3


@pytest.mark.parametrize("leave", [leave_by_break, leave_by_error, leave_by_return])
def test_async_with_waits_for_the_end(pipe: ToyPipeline, leave: Any) -> None:
    gate = Gate()

    async def main() -> None:
        async with stream(pipe, "x", num_inference_steps=ENDLESS, callbacks=[gate]) as events:
            await leave(events)
        assert not gate.thread.is_alive()  # type: ignore[union-attr]
        assert gate.ended.is_set()
        async with stream(pipe, "x") as events:
            assert isinstance((await all_of(events))[-1], Result)

    run(main())
    assert len(gate.steps) < ENDLESS


def test_aclose_that_is_cancelled_has_waited(pipe: ToyPipeline) -> None:
    gate = Gate(1)

    async def main() -> None:
        events = stream(pipe, "x", num_inference_steps=ENDLESS, callbacks=[gate])
        await anext(events)
        await until(gate.reached)
        closing = asyncio.create_task(events.aclose())
        for _ in range(3):
            await asyncio.sleep(0.005)
            closing.cancel()
            await asyncio.sleep(0.005)
            assert not closing.done()
        gate.open.set()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert not gate.thread.is_alive()  # type: ignore[union-attr]
        await events.aclose()

    run(main())


def test_aclose_before_the_first_item(pipe: ToyPipeline) -> None:
    gate = Gate()

    async def main() -> None:
        events = stream(pipe, "x", callbacks=[gate])
        await events.aclose()
        assert await all_of(events) == []
        assert isinstance((await all_of(stream(pipe, "x")))[-1], Result)

    run(main())
    assert gate.steps == []


def test_cancel_and_interrupt_from_another_task(pipe: ToyPipeline) -> None:
    async def taken(act: str) -> list[Event]:
        gate = Gate(4)
        events = stream(pipe, "x", num_inference_steps=ENDLESS, callbacks=[gate])
        task = asyncio.create_task(all_of(events))
        await until(gate.reached)
        getattr(events, act)()
        gate.open.set()
        items = await task
        assert gate.steps == [0, 1, 2, 3, 4]
        return items

    assert [event for event in run(taken("cancel")) if isinstance(event, Result)] == []
    assert isinstance(run(taken("interrupt"))[-1], Result)


def test_cancelled_task_between_two_loops_of_one_call() -> None:
    pipe, gate, there = TwoParts(), Gate(), threading.Event()
    left = threading.Event()

    def between() -> None:
        there.set()
        assert left.wait(LONG)

    pipe.between = between

    async def main() -> None:
        task = asyncio.create_task(all_of(stream(pipe, "x", callbacks=[gate])))
        await until(there)
        task.cancel()
        await asyncio.sleep(0.005)
        left.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())
    assert gate.steps == [0, 1, 2, 0]


def test_event_loop_that_ends_waits_for_the_run(pipe: ToyPipeline) -> None:
    """asyncio.run cancels what is left."""
    gate, tasks = Gate(), []

    async def main() -> None:
        events = stream(pipe, "x", num_inference_steps=ENDLESS, callbacks=[gate])
        await anext(events)
        tasks.append(asyncio.create_task(all_of(events)))
        await asyncio.sleep(0.01)

    asyncio.run(main())
    assert gate.ended.is_set()
    assert tasks[0].cancelled()


def test_event_loop_that_is_closed_in_the_middle(pipe: ToyPipeline) -> None:
    """There is nobody left to tell, and no place to wait: the run ends for itself."""
    gate, loop = Gate(), asyncio.new_event_loop()
    events = stream(pipe, "x", num_inference_steps=ENDLESS, callbacks=[gate])
    loop.run_until_complete(anext(events))
    task = loop.create_task(all_of(events))
    loop.run_until_complete(asyncio.sleep(0.01))
    loop.close()
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    del task, events
    gc.collect()
    assert gate.gone()
    assert gate.ended.is_set()


LEAVE_RUNNING = """
import asyncio
from unicb import Callback
from unicb.streaming import stream
from unicb_numpy.pipelines import ToyPipeline


class TellTheEnd(Callback):
    def on_step_end(self, step): ...
    def on_run_end(self, run):
        print("run has ended")


async def main():
    events = stream(ToyPipeline(), "x", num_inference_steps=100_000, callbacks=[TellTheEnd()])
    async for event in events:
        END
"""


@pytest.mark.parametrize("end", ["return", "raise SystemExit(0)", "1 / 0"])
def test_interpreter_ends_while_a_stream_runs(end: str) -> None:
    program = LEAVE_RUNNING.replace("END", end) + "asyncio.run(main())"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120
    )
    assert "Fatal" not in done.stderr
    assert done.returncode == (1 if end == "1 / 0" else 0), done.stderr
    assert done.stdout == "run has ended\n"
