"""run_async: a pipeline's call awaited, and cancelled with its task."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import threading
import weakref
from collections.abc import Coroutine
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from stop_helpers import WAIT, BlockPipeline, Hold, hooked

from unicb import (
    Callback,
    CFGCutoff,
    GenerationCancelled,
    Interrupt,
    PipelineBusyError,
    Step,
    UnicbError,
    bind,
    sibling,
)
from unicb.asynchronous import run_async
from unicb_numpy.ops import StrictTensor
from unicb_numpy.pipelines import ToyPipeline

KEYWORDS: dict[str, Any] = {"num_inference_steps": 5, "output_type": "latent"}


def run(main: Coroutine[Any, Any, Any]) -> Any:
    """Run it in a new event loop; afterwards, no thread of its own pool is left."""
    result = asyncio.run(asyncio.wait_for(main, WAIT))
    assert not [thread for thread in threading.enumerate() if "asyncio" in thread.name]
    return result


async def until(event: threading.Event) -> None:
    while not event.is_set():
        await asyncio.sleep(0.001)


class Count(Callback):
    def __init__(self) -> None:
        self.steps = 0

    def on_step_end(self, step: Step) -> None:
        self.steps += 1


def test_result_is_the_pipelines(pipe: ToyPipeline) -> None:
    plain = pipe("x", **KEYWORDS)
    count = Count()
    assert np.array_equal(run(run_async(pipe, "x", [count], **KEYWORDS)), plain)
    assert count.steps == 5
    assert np.array_equal(run(run_async(pipe, "x", **KEYWORDS)), plain)
    assert np.array_equal(run(run_async(pipe, prompt="x", **KEYWORDS)), plain)


def test_it_runs_in_another_thread_and_the_event_loop_goes_on(pipe: ToyPipeline) -> None:
    hold, threads = Hold(1), []

    def note(*_: Any) -> None:
        threads.append(threading.get_ident())

    async def main() -> None:
        task = asyncio.create_task(run_async(pipe, "x", [note, hold]))
        await until(hold.there)  # it could not be awaited if the run held up the loop
        hold.go.set()
        await task

    run(main())
    assert threading.get_ident() not in threads
    assert len(set(threads)) == 1


def test_error_of_the_pipeline_is_raised(pipe: ToyPipeline) -> None:
    with pytest.raises(TypeError, match="unexpected keyword"):
        run(run_async(pipe, "x", nonsense=3))

    def fail(*_: Any) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        run(run_async(pipe, "x", [CFGCutoff(0.1), fail]))
    assert hooked(pipe) == []


def test_no_prompt(pipe: ToyPipeline) -> None:
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'prompt'"):
        run(run_async(pipe))


def test_bad_callbacks_are_refused_before_anything_runs(pipe: ToyPipeline) -> None:
    with pytest.raises(TypeError, match=r"bind\(\) takes"):
        run(run_async(pipe, "x", [3]))  # type: ignore[list-item]


def test_cancelled_task_cancels_its_run(pipe: ToyPipeline) -> None:
    hold, count = Hold(1), Count()
    binding = bind(pipe, CFGCutoff(cutoff_step_index=0), count, hold)

    async def main() -> None:
        task = asyncio.create_task(run_async(pipe, "x", binding))
        await until(hold.there)
        task.cancel()
        await asyncio.sleep(0.01)
        assert not task.done()  # its thread has not done with the pipeline
        hold.go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()
        # Not a moment later: whoever awaited it may use the pipeline.
        assert hooked(pipe) == []
        assert binding.state == "cancelled"

    run(main())
    assert count.steps == 2
    assert binding.step == 1


def test_task_cancelled_twice(pipe: ToyPipeline) -> None:
    hold, count = Hold(1), Count()

    async def main() -> None:
        task = asyncio.create_task(run_async(pipe, "x", [count, hold]))
        await until(hold.there)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0.005)
            assert not task.done()
        hold.go.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())
    assert count.steps == 2


def test_timeout(pipe: ToyPipeline) -> None:
    hold, count = Hold(1), Count()
    binding = bind(pipe, count, hold)

    async def expire(limit: asyncio.Timeout) -> None:
        await until(hold.there)
        limit.reschedule(asyncio.get_running_loop().time())
        while binding._handle.request is None:  # the task hears of it in a later turn of the loop
            await asyncio.sleep(0.001)
        hold.go.set()

    async def main() -> None:
        limit = asyncio.timeout(None)
        task = asyncio.create_task(expire(limit))
        with pytest.raises(TimeoutError):
            async with limit:
                await run_async(pipe, "x", binding)
        await task

    run(main())
    assert count.steps == 2
    assert hooked(pipe) == []


def test_cancel_before_the_thread_has_begun(pipe: ToyPipeline) -> None:
    """The pool is busy with something else: the run never begins, and the task is over at once."""
    busy, count = threading.Event(), Count()
    binding = bind(pipe, count)

    async def main(pool: ThreadPoolExecutor) -> None:
        pool.submit(busy.wait, WAIT)
        task = asyncio.create_task(run_async(pipe, "x", binding, executor=pool))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        busy.set()
        # Nothing that was asked of it is left for the next run.
        await run_async(pipe, "x", binding, executor=pool, **KEYWORDS)

    with ThreadPoolExecutor(1) as pool:
        run(main(pool))
    assert count.steps == 5
    assert binding.state == "finished"


@pytest.mark.parametrize("moment", range(8))
def test_cancel_around_the_beginning(pipe: ToyPipeline, moment: int) -> None:
    """Whenever it comes, the run is prevented or cancelled, and the next one is its plain self."""
    count = Count()

    async def main() -> None:
        task = asyncio.create_task(
            run_async(pipe, "x", [count], num_inference_steps=100_000, output_type="latent")
        )
        for _ in range(moment):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        steps = count.steps
        await asyncio.sleep(0.01)
        assert count.steps == steps

    plain = pipe("x", **KEYWORDS)
    run(main())
    assert count.steps < 100_000
    assert np.array_equal(pipe("x", **KEYWORDS), plain)


def test_binding_that_is_handed_in_interrupts(pipe: ToyPipeline) -> None:
    hold = Hold(1)
    binding = bind(pipe, hold)

    async def main() -> Any:
        task = asyncio.create_task(run_async(pipe, "x", binding, **KEYWORDS))
        await until(hold.there)
        assert binding.interrupt() is True
        hold.go.set()
        return await task

    stopped = run(main())
    assert binding.state == "interrupted"
    expected = pipe("x", **KEYWORDS, **bind(pipe, Interrupt(1)))
    assert np.array_equal(stopped, expected)


def test_binding_that_is_cancelled_raises_its_error(pipe: ToyPipeline) -> None:
    """The task was not cancelled: to whoever awaits it, that is an error like any other."""
    hold = Hold(1)
    binding = bind(pipe, hold)

    async def main() -> None:
        task = asyncio.create_task(run_async(pipe, "x", binding))
        await until(hold.there)
        binding.cancel()
        hold.go.set()
        with pytest.raises(GenerationCancelled, match="after step 1"):
            await task
        assert not task.cancelled()

    run(main())


def test_cancelled_task_leaves_no_tensor(pipe: ToyPipeline) -> None:
    """Event loops and tools keep the errors of tasks."""
    refs: list[weakref.ref[Any]] = []

    class Traced(StrictTensor):
        __slots__ = ("__weakref__",)

    class Swap(Callback):
        tensors = ("latents",)

        def on_step_end(self, step: Step) -> None:
            fresh = Traced(step["latents"].data)
            refs.append(weakref.ref(fresh))
            step["latents"] = fresh

    hold = Hold(2)

    async def main() -> None:
        task = asyncio.create_task(run_async(pipe, "x", [Swap(), hold]))
        await until(hold.there)
        task.cancel()
        await asyncio.sleep(0.01)  # the task is told in the loop's next turn
        hold.go.set()
        await asyncio.wait([task])
        kept = task
        gc.collect()
        assert kept.cancelled()
        assert [ref() for ref in refs] == [None] * 3

    run(main())


def test_run_that_ends_as_its_task_is_cancelled() -> None:
    """Its last step is over and it decodes: the task is cancelled all the same, and only then."""
    decoding, go = threading.Event(), threading.Event()

    class Decodes(ToyPipeline):
        @functools.wraps(ToyPipeline.__call__)
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            out = super().__call__(*args, **kwargs)
            decoding.set()
            assert go.wait(WAIT)
            return out

    slow = Decodes()
    binding = bind(slow)

    async def main() -> None:
        task = asyncio.create_task(run_async(slow, "x", binding))
        await until(decoding)
        task.cancel()
        await asyncio.sleep(0.01)
        assert not task.done()
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())
    assert binding.state == "finished"


def test_many_at_once() -> None:
    """Each has its pipeline; some tasks are cancelled, and the others' pictures are right."""
    pipes = [BlockPipeline() for _ in range(6)]
    plain = pipes[0]("x", **KEYWORDS)

    async def main() -> list[Any]:
        tasks = [asyncio.create_task(run_async(pipe, "x", **KEYWORDS)) for pipe in pipes]
        tasks[1].cancel()
        tasks[4].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    results = run(main())
    for number, result in enumerate(results):
        if number in (1, 4):
            assert isinstance(result, asyncio.CancelledError)
        else:
            assert np.array_equal(result, plain)
    assert [hooked(pipe) for pipe in pipes] == [[]] * 6


def test_executor_that_is_handed_in(pipe: ToyPipeline) -> None:
    names: list[str] = []

    def note(*_: Any) -> None:
        names.append(threading.current_thread().name)

    with ThreadPoolExecutor(1, thread_name_prefix="ours") as pool:
        run(run_async(pipe, "x", [note], executor=pool))
    assert {name.partition("_")[0] for name in names} == {"ours"}


def test_executor_of_processes(pipe: ToyPipeline) -> None:
    with (
        ProcessPoolExecutor(1) as pool,
        pytest.raises(TypeError, match="executor of threads"),
    ):
        run(run_async(pipe, "x", executor=pool))


def test_context_goes_with_it(pipe: ToyPipeline) -> None:
    user: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")
    seen: set[str] = set()

    def note(*_: Any) -> None:
        seen.add(user.get())

    async def main() -> None:
        user.set("Ada")
        await run_async(pipe, "x", [note])

    run(main())
    assert seen == {"Ada"}


def test_binding_of_another_pipeline(pipe: ToyPipeline) -> None:
    with pytest.raises(UnicbError, match=r"another ToyPipeline: bind\(\) this one"):
        run(run_async(pipe, "x", bind(ToyPipeline())))


def test_binding_with_on_sigint(pipe: ToyPipeline) -> None:
    """Ctrl-C reaches the main thread alone, and the run is in another."""
    binding = bind(pipe, on_sigint="interrupt")
    with pytest.raises(UnicbError, match="main thread"):
        run(run_async(pipe, "x", binding))
    assert binding.state == "failed"


def test_a_second_run_on_the_pipeline_is_refused(pipe: ToyPipeline) -> None:
    """And goes on a sibling of it."""
    plain, hold = pipe("x"), Hold(1)

    async def main() -> Any:
        first = asyncio.create_task(run_async(pipe, "x", [hold]))
        await until(hold.there)
        with pytest.raises(PipelineBusyError, match="this ToyPipeline is in use"):
            await run_async(pipe, "x")
        second = await run_async(sibling(pipe), "x")
        hold.go.set()
        return await first, second

    assert all(np.array_equal(out, plain) for out in run(main()))
