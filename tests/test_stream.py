"""stream: previews while it runs, the result at last, and nothing left behind."""

from __future__ import annotations

import contextvars
import gc
import subprocess
import sys
import threading
import time
import traceback
import weakref
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sink_helpers import LONG, no_thread_is_left  # noqa: F401

from unicb import (
    Callback,
    GenerationCancelled,
    LatentFormat,
    PipelineBusyError,
    PipelineFacts,
    Preview,
    PreviewFrame,
    Run,
    Step,
    UnsupportedPipelineError,
    bind,
    sibling,
    streaming,
)
from unicb.streaming import Result, Stream, stream
from unicb_numpy.pipelines import ToyPipeline

ALL = 1000  # more previews than any run here has
ENDLESS = 100_000  # steps that only a broken test takes


class Gate(Callback):
    """Notes the steps, and holds the run at the end of one until it is opened."""

    def __init__(self, at: int | None = None) -> None:
        self.at = at
        self.reached, self.open, self.ended = (threading.Event() for _ in range(3))
        self.steps: list[int] = []
        self.thread: threading.Thread | None = None

    def on_step_end(self, step: Step) -> None:
        self.thread = threading.current_thread()
        self.steps.append(step.index)
        if step.index == self.at:
            self.reached.set()
            assert self.open.wait(LONG)

    def on_run_end(self, run: Run) -> None:
        self.ended.set()

    def gone(self) -> bool:
        """Whether the run's thread ends; waits for it."""
        assert self.thread is not None
        self.thread.join(LONG)
        return not self.thread.is_alive()


def in_thread(function: Any) -> threading.Thread:
    thread = threading.Thread(target=function)
    thread.start()
    return thread


def steps_of(events: list[PreviewFrame | Result]) -> list[int]:
    return [event.step for event in events if isinstance(event, PreviewFrame)]


# --- what comes ------------------------------------------------------------------------------


def test_previews_and_then_the_result(pipe: ToyPipeline) -> None:
    plain = pipe(["x", "y"], num_inference_steps=7, seed=3)
    frames: list[PreviewFrame] = []
    pipe(["x", "y"], num_inference_steps=7, seed=3, **bind(pipe, Preview(frames.append)))
    threads = threading.active_count()
    *previews, result = stream(pipe, ["x", "y"], num_inference_steps=7, seed=3, backlog=ALL)
    assert threading.active_count() == threads
    assert isinstance(result, Result)
    assert (result.output == plain).all()
    assert [preview.step for preview in previews] == list(range(7))  # type: ignore[union-attr]
    for preview, frame in zip(previews, frames, strict=True):
        assert isinstance(preview, PreviewFrame)
        assert (preview.num_timesteps, preview.timestep) == (7, frame.timestep)
        assert [i.tobytes() for i in preview.images] == [i.tobytes() for i in frame.images]


def test_thread_has_ended_when_the_last_item_comes(
    pipe: ToyPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[bool] = []

    def slow_to_end(*arguments: Any) -> None:
        generate(*arguments)
        time.sleep(0.1)  # for a stream that does not wait to be caught
        ended.append(True)

    generate = streaming._generate
    monkeypatch.setattr(streaming, "_generate", slow_to_end)
    *_, last = stream(pipe, "x")
    assert isinstance(last, Result)
    assert ended == [True]


@settings(deadline=None, max_examples=30)
@given(
    steps=st.integers(1, 12),
    every=st.integers(1, 15),
    backlog=st.integers(1, 15),
    order=st.sampled_from([1, 2]),
)
def test_no_step_is_shown_twice_or_late(steps: int, every: int, backlog: int, order: int) -> None:
    pipe = ToyPipeline(order)
    plain = pipe("x", num_inference_steps=steps)
    events = list(stream(pipe, "x", num_inference_steps=steps, every=every, backlog=backlog))
    shown, last = steps_of(events), pipe.num_timesteps - 1
    assert set(shown) <= {*range(0, last, every), last}
    assert shown == sorted(set(shown))
    assert shown[-1] == last
    assert isinstance(events[-1], Result)
    assert (events[-1].output == plain).all()


@pytest.mark.parametrize("backlog", [1, 3])
def test_slow_consumer_gets_the_newest_and_the_result(pipe: ToyPipeline, backlog: int) -> None:
    """Nothing is taken until the run has ended, which it does."""
    gate = Gate(0)
    events = stream(pipe, "x", num_inference_steps=9, backlog=backlog, callbacks=[gate])
    first: list[Any] = []
    taker = in_thread(lambda: first.append(next(events)))
    assert gate.reached.wait(LONG)
    gate.open.set()
    taker.join(LONG)
    assert gate.gone()
    rest = list(events)
    newest = [step for step in range(9 - backlog, 9) if step > first[0].step]
    assert steps_of(rest) == newest
    assert isinstance(rest[-1], Result)


def test_size_and_batch(pipe: ToyPipeline) -> None:
    def sizes(**how: Any) -> list[tuple[int, int]]:
        first = next(stream(pipe, ["x", "y", "z"], **how))
        assert isinstance(first, PreviewFrame)
        return [image.size for image in first.images]

    assert sizes() == [(8, 8)] * 3
    assert sizes(size=64, batch="first") == [(64, 64)]
    assert sizes(size=(20, 10), batch="grid") == [(42, 22)]


def test_source(pipe: ToyPipeline) -> None:
    def sources(**how: Any) -> set[str]:
        *frames, _ = stream(pipe, "x", backlog=ALL, **how)
        return {frame.source for frame in frames}  # type: ignore[union-attr]

    assert sources(source="noisy") == {"noisy"}
    with pytest.raises(ValueError, match="source must be"):
        stream(pipe, "x", source="pretty")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="frames must be"):
        stream(pipe, "x", video_frames="all")  # type: ignore[arg-type]


def test_max_fps_lets_the_first_and_the_last_pass(pipe: ToyPipeline) -> None:
    events = list(stream(pipe, "x", max_fps=1e-9, backlog=ALL))
    assert steps_of(events) == [0, 9]


def test_factors(pipe: ToyPipeline) -> None:
    red = LatentFormat("red", 4, 8, ((0.0,) * 3,) * 4, (1.0, -1.0, -1.0), (-1.0, 1.0), "made up")
    first = next(stream(pipe, "x", factors=red))
    assert isinstance(first, PreviewFrame)
    assert first.images[0].getpixel((3, 3)) == (255, 0, 0)


def test_callbacks_come_before_the_preview(pipe: ToyPipeline) -> None:
    def zero(_pipe: Any, _i: int, _t: Any, tensors: dict[str, Any]) -> None:
        tensors["latents"] = tensors["latents"] * 0.0

    gate = Gate()
    frame, result = stream(pipe, "x", num_inference_steps=1, callbacks=(zero, gate))
    assert isinstance(frame, PreviewFrame)
    assert np.asarray(frame.images[0]).std(axis=(0, 1)).max() == 0
    assert isinstance(result, Result)
    assert gate.ended.is_set()


def test_results_of_arrays_are_compared_as_objects() -> None:
    """What a pipeline returned may be arrays, or hold some, and these have no truth value."""
    array = np.arange(4.0)
    for output in (array, (array, None), {"images": [array]}):
        result = Result(output)
        assert result == result
        assert result != Result(output)
        assert len({result, Result(output)}) == 2


def test_context_variables_are_those_of_who_iterates(pipe: ToyPipeline) -> None:
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="nobody")
    seen: list[str] = []

    def look(*_: Any) -> None:
        seen.append(name.get())
        name.set("inside")

    events = stream(pipe, "x", num_inference_steps=2, callbacks=[look])
    name.set("me")
    list(events)
    assert seen == ["me", "inside"]
    assert name.get() == "me"


def test_preview_that_fails_warns_once_and_the_result_comes(pipe: ToyPipeline) -> None:
    with pytest.warns(RuntimeWarning, match="batch=5: there is no such picture") as caught:
        [result] = stream(pipe, "x", batch=5)
    assert len(caught) == 1
    assert isinstance(result, Result)


# --- what is refused at once -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "error", "said"),
    [
        ({"callback_on_step_end": print}, TypeError, r"takes callbacks=\[\.\.\.\]"),
        ({"callbacks": print}, TypeError, "takes a list of callbacks"),
        ({"callbacks": Gate()}, TypeError, "takes a list of callbacks"),
        ({"callbacks": [3]}, TypeError, "Callback objects and functions"),
        ({"backlog": 0}, ValueError, "backlog must be at least 1"),
        ({"every": 0}, ValueError, "every must be at least 1"),
        ({"max_fps": 0}, ValueError, "max_fps must be above 0"),
        ({"size": 0}, ValueError, "size must be at least 1"),
        ({"batch": "some"}, ValueError, "or an index, not 'some'"),
    ],
)
def test_bad_arguments(
    pipe: ToyPipeline, how: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        stream(pipe, "x", **how)


class Stranger(ToyPipeline):
    unicb_facts = PipelineFacts(source="this file", denoisers=("unet",))


def test_pipeline_that_cannot_be_shown_is_refused_at_once() -> None:
    with pytest.raises(UnsupportedPipelineError, match="no preview for Stranger"):
        stream(Stranger(), "x")


# --- errors ----------------------------------------------------------------------------------


def test_error_of_the_pipeline_comes_with_its_traceback(pipe: ToyPipeline) -> None:
    def explode(_pipe: Any, index: int, *_: Any) -> None:
        if index == 2:
            raise LookupError("no such thing")

    events = stream(pipe, "x", backlog=ALL, callbacks=[explode])
    assert [next(events).step for _ in range(2)] == [0, 1]  # type: ignore[union-attr]
    with pytest.raises(LookupError, match="no such thing") as caught:
        next(events)
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert names[-1] == "explode"
    assert "__call__" in names
    assert list(events) == []
    assert isinstance(list(stream(pipe, "x"))[-1], Result)


def test_error_before_the_first_step(pipe: ToyPipeline) -> None:
    with pytest.raises(TypeError, match="no_such_argument"):
        list(stream(pipe, "x", no_such_argument=3))
    assert isinstance(list(stream(pipe, "x"))[-1], Result)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_any_exception_is_raised(pipe: ToyPipeline, error: BaseException) -> None:
    def explode(*_: Any) -> None:
        raise error

    with pytest.raises(type(error)):
        list(stream(pipe, "x", callbacks=[explode]))


def test_stop_iteration_does_not_pass_for_the_end(pipe: ToyPipeline) -> None:
    def explode(*_: Any) -> None:
        raise StopIteration

    with pytest.raises(RuntimeError, match="raised StopIteration"):
        list(stream(pipe, "x", callbacks=[explode]))


def test_error_keeps_nothing_alive(pipe: ToyPipeline) -> None:
    class Held:
        pass

    def run() -> weakref.ref[Held]:
        held = Held()

        def explode(*_: Any, held: Held = held) -> None:
            raise LookupError

        with pytest.raises(LookupError):
            list(stream(pipe, "x", callbacks=[explode]))
        return weakref.ref(held)

    gone = run()
    gc.collect()
    assert gone() is None


# --- leaving early ---------------------------------------------------------------------------


def leave_by_break(events: Stream) -> None:
    for _ in events:
        break


def leave_by_error(events: Stream) -> None:
    try:
        for _ in events:
            raise LookupError
    except LookupError:
        pass


def leave_by_cancel(events: Stream) -> None:
    next(events)
    events.cancel()


def leave_in_a_cycle(events: Stream) -> None:
    next(events)
    cycle: list[Any] = [events]
    cycle.append(cycle)


@pytest.mark.parametrize(
    "leave", [leave_by_break, leave_by_error, leave_by_cancel, leave_in_a_cycle]
)
def test_leaving_cancels(pipe: ToyPipeline, leave: Any) -> None:
    plain, gate = pipe("x"), Gate(3)

    def abandon() -> None:
        leave(stream(pipe, "x", num_inference_steps=ENDLESS, callbacks=[gate]))

    abandon()
    gc.collect()
    gate.open.set()
    assert gate.gone()
    assert gate.ended.is_set()
    assert gate.steps[-1] <= 3
    assert (pipe("x") == plain).all()


def test_close_waits_for_the_end(pipe: ToyPipeline) -> None:
    gate = Gate(2)
    events = stream(pipe, "x", num_inference_steps=ENDLESS, callbacks=[gate])
    next(events)
    assert gate.reached.wait(LONG)
    closer = in_thread(events.close)
    gate.open.set()
    closer.join(LONG)
    assert gate.ended.is_set()
    assert not gate.thread.is_alive()  # type: ignore[union-attr]
    assert list(events) == []
    events.close()


def test_with_block(pipe: ToyPipeline) -> None:
    gate = Gate()
    with stream(pipe, "x", num_inference_steps=ENDLESS, callbacks=[gate]) as events:
        for _ in events:
            break
    assert not gate.thread.is_alive()  # type: ignore[union-attr]
    assert len(gate.steps) < ENDLESS
    with stream(pipe, "x") as events:
        assert isinstance(list(events)[-1], Result)


def test_nothing_runs_before_the_first_item(pipe: ToyPipeline) -> None:
    gate, threads = Gate(), threading.active_count()
    events = stream(pipe, "x", callbacks=[gate])
    assert threading.active_count() == threads
    events.close()
    assert list(events) == []
    stream(pipe, "x", callbacks=[gate])  # nobody refers to it
    cancelled = stream(pipe, "x", callbacks=[gate])
    cancelled.cancel()
    assert list(cancelled) == []
    assert threading.active_count() == threads
    assert gate.steps == []


def test_cancel_ends_the_iteration_of_another_thread(pipe: ToyPipeline) -> None:
    gate, taken = Gate(4), []
    events = stream(pipe, "x", num_inference_steps=ENDLESS, callbacks=[gate])
    taker = in_thread(lambda: taken.extend(events))
    assert gate.reached.wait(LONG)
    events.cancel()
    gate.open.set()
    taker.join(LONG)
    assert not taker.is_alive()
    assert all(isinstance(event, PreviewFrame) for event in taken)
    assert gate.steps == [0, 1, 2, 3, 4]


def test_closing_from_a_callback(pipe: ToyPipeline) -> None:
    class Close(Callback):
        def on_step_end(self, step: Step) -> None:
            if step.index == 2:
                events.close()

    gate = Gate()
    events = stream(pipe, "x", num_inference_steps=ENDLESS, callbacks=[Close(), gate])
    assert all(isinstance(event, PreviewFrame) for event in events)
    assert gate.steps == [0, 1, 2]


class TwoParts(ToyPipeline):
    """A pipeline whose call has two loops, with something in between."""

    between: Any = None

    def __call__(  # type: ignore[override]
        self,
        prompt: str,
        callback_on_step_end: Any = None,
        callback_on_step_end_tensor_inputs: Any = ("latents",),
    ) -> Any:
        how = {
            "callback_on_step_end": callback_on_step_end,
            "callback_on_step_end_tensor_inputs": callback_on_step_end_tensor_inputs,
        }
        super().__call__(prompt, 3, **how)
        self.between()
        return super().__call__(prompt, 3, **how)


def test_cancel_between_two_loops() -> None:
    pipe, gate = TwoParts(), Gate()
    events = stream(pipe, "x", backlog=ALL, callbacks=[gate])
    pipe.between = events.cancel
    assert all(isinstance(event, PreviewFrame) for event in events)
    assert gate.steps == [0, 1, 2, 0]


def test_interrupt_brings_the_result_early(pipe: ToyPipeline) -> None:
    gate = Gate(3)
    events = stream(pipe, "x", num_inference_steps=ENDLESS, callbacks=[gate])
    next(events)
    assert gate.reached.wait(LONG)
    assert events.interrupt()
    gate.open.set()
    result = list(events)[-1]
    assert isinstance(result, Result)
    assert result.output.shape == (1, 8, 8, 4)
    assert gate.steps == [0, 1, 2, 3]
    assert not events.interrupt()


def test_cancelled_by_somebody_else_is_an_error(pipe: ToyPipeline) -> None:
    def cancel(_pipe: Any, index: int, *_: Any) -> None:
        raise GenerationCancelled(index, 0.0)

    with pytest.raises(GenerationCancelled):
        list(stream(pipe, "x", callbacks=[cancel]))


# --- two at a time ---------------------------------------------------------------------------


def test_second_stream_on_the_same_pipeline_is_refused(pipe: ToyPipeline) -> None:
    gate, other = Gate(1), Gate()
    """When it is made: a service answers that it is busy before it has sent anything."""
    first = stream(pipe, "x", callbacks=[gate])
    with pytest.raises(PipelineBusyError, match="this ToyPipeline is in use"):
        stream(pipe, "y", callbacks=[other])  # nobody has asked for an item yet
    next(first)
    for _ in range(2):
        with pytest.raises(PipelineBusyError, match="this ToyPipeline is in use"):
            stream(pipe, "y", callbacks=[other])
        with pytest.raises(PipelineBusyError, match="this ToyPipeline is in use"):
            bind(pipe, other)("y")
    assert other.steps == []
    gate.open.set()
    assert isinstance(list(first)[-1], Result)
    assert isinstance(list(stream(pipe, "y", callbacks=[other]))[-1], Result)


def test_streams_that_share_a_scheduler_are_refused(pipe: ToyPipeline) -> None:
    """As those of siblings made by ``from_pipe`` do; not those of ``unicb.sibling``."""
    other, gate = ToyPipeline(), Gate(1)
    other.scheduler = pipe.scheduler
    first = stream(pipe, "x", callbacks=[gate])
    next(first)
    with pytest.raises(PipelineBusyError, match=r"the ToyScheduler of this ToyPipeline is also"):
        stream(other, "x")
    plain = list(stream(sibling(pipe), "x"))[-1]
    gate.open.set()
    last = list(first)[-1]
    assert isinstance(plain, Result)
    assert isinstance(last, Result)
    assert (plain.output == last.output).all()


def test_loop_that_was_left_does_not_lock_the_pipeline(pipe: ToyPipeline) -> None:
    """Though the stream still has a name; a loop that goes on takes it up again."""
    plain, gate = pipe("y"), Gate()
    first = stream(pipe, "x", num_inference_steps=ENDLESS, callbacks=[gate])
    for _ in range(2):
        leave_by_break(first)
    second = stream(pipe, "y")
    assert (list(second)[-1].output == plain).all()  # type: ignore[union-attr]
    assert gate.ended.is_set()
    assert [event for event in first if isinstance(event, Result)] == []


def test_loop_that_goes_on_keeps_the_pipeline(pipe: ToyPipeline) -> None:
    first = stream(pipe, "x", num_inference_steps=ENDLESS)
    for _ in first:
        with pytest.raises(PipelineBusyError):
            stream(pipe, "y")
        break
    first.close()


def test_ctrl_c_while_waiting_for_an_item_cancels(
    pipe: ToyPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, gate = pipe("y"), Gate(2)
    first = stream(pipe, "x", num_inference_steps=ENDLESS, callbacks=[gate])
    next(first)
    changed = first._job._changed

    def pressed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as keyboard:
        keyboard.setattr(changed, "wait_for", pressed)
        with pytest.raises(KeyboardInterrupt) as kept:
            next(first)
    gate.open.set()
    assert (list(stream(pipe, "y"))[-1].output == plain).all()  # type: ignore[union-attr]
    assert len(gate.steps) < ENDLESS
    assert kept.traceback


def test_call_of_a_binding_waits_for_a_stream_that_was_left(pipe: ToyPipeline) -> None:
    plain, gate = pipe("y"), Gate(1)
    first = stream(pipe, "x", num_inference_steps=ENDLESS, callbacks=[gate])
    next(first)
    first.cancel()
    ended: list[bool] = []
    callbacks = bind(pipe, lambda *_: ended.append(gate.ended.is_set()))
    taken: list[Any] = []
    taker = in_thread(lambda: taken.append(callbacks("y")))
    gate.open.set()
    taker.join(LONG)
    assert (taken[0] == plain).all()
    assert all(ended)


@pytest.mark.parametrize("given_up", ["cancelled", "dropped", "closed"])
def test_next_call_waits_also_past_a_stream_that_never_began(
    pipe: ToyPipeline, given_up: str
) -> None:
    """The first is still in its step; the second was to wait for it, and is given up before."""
    plain, gate = pipe("y"), Gate(1)
    first = stream(pipe, "x", num_inference_steps=ENDLESS, callbacks=[gate])
    next(first)
    assert gate.reached.wait(LONG)
    first.cancel()
    second: Any = stream(pipe, "z")
    if given_up == "cancelled":
        second.cancel()
    elif given_up == "closed":
        second.close()
    else:
        del second
        gc.collect()
    ended: list[bool] = []
    callbacks = bind(pipe, lambda *_: ended.append(gate.ended.is_set()))
    taken: list[Any] = []
    taker = in_thread(lambda: taken.append(callbacks("y")))
    taker.join(0.3)
    gate.open.set()
    taker.join(LONG)
    assert (taken[0] == plain).all()
    assert all(ended)


def test_a_stream_that_was_dropped_keeps_no_pipeline() -> None:
    for started in (False, True):
        pipe = ToyPipeline()
        events: Any = stream(pipe, "x")
        if started:
            list(events)
        gone = weakref.ref(pipe.unet)
        del events, pipe
        gc.collect()
        assert gone() is None


def test_a_callback_of_a_stream_that_was_left_cannot_call_its_pipeline(pipe: ToyPipeline) -> None:
    refused: list[bool] = []

    class Again(Callback):
        def on_step_end(self, step: Step) -> None:
            events.cancel()
            for call in (lambda: bind(pipe)("y"), lambda: stream(pipe, "y")):
                with pytest.raises(PipelineBusyError):
                    call()
                refused.append(True)

    events = stream(pipe, "x", callbacks=[Again()])
    assert [event for event in events if isinstance(event, Result)] == []
    assert refused == [True, True]


def test_streams_on_two_pipelines_run_at_the_same_time() -> None:
    pipes, gates = [ToyPipeline(), ToyPipeline()], [Gate(1), Gate(1)]
    plain = pipes[0]("x")
    streams = [stream(pipe, "x", callbacks=[gate]) for pipe, gate in zip(pipes, gates, strict=True)]
    for events in streams:
        next(events)
    for gate in gates:
        assert gate.reached.wait(LONG)
    for gate in gates:
        gate.open.set()
    for events in streams:
        assert (list(events)[-1].output == plain).all()  # type: ignore[union-attr]


def test_next_stream_waits_for_one_that_was_left(pipe: ToyPipeline) -> None:
    plain, gate = pipe("y"), Gate(1)
    leave_by_break(stream(pipe, "x", num_inference_steps=ENDLESS, callbacks=[gate]))
    ended_before: list[bool] = []
    second = stream(pipe, "y", callbacks=[lambda *_: ended_before.append(gate.ended.is_set())])
    taken: list[Any] = []
    taker = in_thread(lambda: taken.extend(second))
    gate.open.set()
    taker.join(LONG)
    assert not taker.is_alive()
    assert all(ended_before)
    assert len(ended_before) == 10
    assert (taken[-1].output == plain).all()


def test_stream_that_waits_can_be_left_too(pipe: ToyPipeline) -> None:
    gate, never = Gate(1), Gate()
    first = stream(pipe, "x", num_inference_steps=ENDLESS, callbacks=[gate])
    next(first)
    first.cancel()
    second = stream(pipe, "y", callbacks=[never])
    taken: list[Any] = []
    taker = in_thread(lambda: taken.extend(second))
    second.cancel()
    third = stream(pipe, "z")
    gate.open.set()
    taker.join(LONG)
    assert taken == []
    assert never.steps == []
    assert isinstance(list(third)[-1], Result)


# --- the end of the interpreter --------------------------------------------------------------

LEAVE_RUNNING = """
from unicb import Callback
from unicb.streaming import stream
from unicb_numpy.pipelines import ToyPipeline


class TellTheEnd(Callback):
    def on_step_end(self, step): ...
    def on_run_end(self, run):
        print("run has ended")


events = stream(ToyPipeline(), "x", num_inference_steps=100_000, callbacks=[TellTheEnd()])
next(events)
"""


@pytest.mark.parametrize("end", ["", "raise SystemExit(0)", "1 / 0"])
def test_interpreter_ends_while_a_stream_runs(end: str) -> None:
    """Far more steps than there is time for: it ends because the run is cancelled."""
    done = subprocess.run(
        [sys.executable, "-c", LEAVE_RUNNING + end], capture_output=True, text=True, timeout=120
    )
    assert "Fatal" not in done.stderr
    assert done.returncode == (1 if end == "1 / 0" else 0), done.stderr
    assert done.stdout == "run has ended\n"
