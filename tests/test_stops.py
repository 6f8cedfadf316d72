"""The handle on a run: interrupt, cancel, state, step and wait, from any thread."""

from __future__ import annotations

import contextlib
import gc
import pickle
import threading
import traceback
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from stop_helpers import WAIT, BlockPipeline, Hold, InThread, hooked

from unicb import Callback, CFGCutoff, GenerationCancelled, Interrupt, Step, UnicbError, bind
from unicb_numpy.ops import StrictTensor
from unicb_numpy.pipelines import ToyPipeline

STEPS = 6


class Once(Callback):
    """Does something at the end of one step of the first run."""

    def __init__(self, index: int, action: Callable[[], Any]) -> None:
        self.index, self.action, self.done = index, action, False

    def on_step_end(self, step: Step) -> None:
        if step.index == self.index and not self.done:
            self.done = True
            self.action()


class Keep(Callback):
    tensors = ("latents",)

    def __init__(self) -> None:
        self.latents: list[Any] = []

    def on_step_end(self, step: Step) -> None:
        self.latents.append(step.ops.to_numpy(step["latents"]))


def run(pipe: Any, callbacks: Any = (), steps: int = STEPS) -> Any:
    return pipe("x", num_inference_steps=steps, output_type="latent", **dict(callbacks))


def failing(pipe: ToyPipeline, after: int) -> None:
    """Have the scheduler fail once so many steps have been taken."""
    step = pipe.scheduler.step
    taken: list[int] = []

    def fail(*args: Any) -> Any:
        taken.append(1)
        return 1 / 0 if len(taken) > after else step(*args)

    pipe.scheduler.step = fail  # type: ignore[method-assign]


# --- states


def test_states_of_a_run_that_finishes(pipe: ToyPipeline) -> None:
    seen: list[Any] = []

    class Look(Callback):
        def on_step_end(self, step: Step) -> None:
            seen.append((callbacks.state, callbacks.step))

    callbacks = bind(pipe, Look())
    assert (callbacks.state, callbacks.step) == ("pending", None)
    assert callbacks.pipeline is pipe
    run(pipe, callbacks, 3)
    # A callback is told of its step before the handle is.
    assert seen == [("running", None), ("running", 0), ("running", 1)]
    assert (callbacks.state, callbacks.step) == ("finished", 2)


def test_a_new_call_is_pending_until_its_first_step_has_ended(pipe: ToyPipeline) -> None:
    callbacks = bind(pipe)
    run(pipe, callbacks)
    inside: list[Any] = []
    encode = pipe.encode_prompt
    pipe.encode_prompt = lambda prompts: (  # type: ignore[method-assign]
        inside.append((callbacks.state, callbacks.step)) or encode(prompts)
    )
    run(pipe, callbacks)
    assert inside == [("pending", None)] * 2
    assert callbacks.state == "finished"


@pytest.mark.parametrize("how", ["interrupt", "cancel", "cancel now"])
def test_states_of_a_run_that_is_stopped(how: str) -> None:
    pipe, keep = BlockPipeline(), Keep()
    plain = run(pipe)
    pipe.unet.computed.clear()

    def stop() -> None:
        if how == "interrupt":
            assert callbacks.interrupt(picture="latents")
        else:
            assert callbacks.cancel("now" in how)

    callbacks = bind(pipe, keep, Once(2, stop))
    if how == "interrupt":
        assert np.array_equal(run(pipe, callbacks), keep.latents[-1])
    else:
        with pytest.raises(GenerationCancelled, match="after step 2") as caught:
            run(pipe, callbacks)
        assert caught.value.step == 2
        assert caught.value.timestep == pytest.approx(1000 * (1 - 2 / STEPS))
        assert np.array_equal(caught.value.latents, keep.latents[-1])
    assert len(keep.latents) == 3
    assert len(pipe.unet.computed) == 3 * 5
    assert (callbacks.state, callbacks.step) == (
        "interrupted" if how == "interrupt" else "cancelled",
        2,
    )
    assert hooked(pipe) == []
    assert np.array_equal(run(pipe), plain)
    assert np.array_equal(run(pipe, callbacks), plain)  # it stops once


@pytest.mark.parametrize("index", [0, 2, STEPS - 1])
@pytest.mark.parametrize("now", [False, True])
def test_cancel_at_any_step(pipe: ToyPipeline, index: int, now: bool) -> None:
    """At the last step's end, too, nothing is decoded."""
    callbacks = bind(pipe, CFGCutoff(0.5), Once(index, lambda: callbacks.cancel(now)))
    with pytest.raises(GenerationCancelled, match=f"after step {index} "):
        run(pipe, callbacks)
    assert (callbacks.state, callbacks.step) == ("cancelled", index)
    assert hooked(pipe) == []


def test_interrupt_that_comes_at_the_last_step_changes_nothing(pipe: ToyPipeline) -> None:
    plain = run(pipe)
    callbacks = bind(pipe, Once(STEPS - 1, lambda: callbacks.interrupt()))
    assert np.array_equal(run(pipe, callbacks), plain)
    assert callbacks.interrupt() is False
    assert np.array_equal(run(pipe, callbacks), plain)


@pytest.mark.parametrize("after", [1, 3])
def test_state_of_a_run_that_fails_in_its_loop(pipe: ToyPipeline, after: int) -> None:
    failing(pipe, after)
    callbacks = bind(pipe, CFGCutoff(cutoff_step_index=0))
    with pytest.raises(ZeroDivisionError):
        run(pipe, callbacks)
    assert (callbacks.state, callbacks.step) == ("failed", after - 1)
    assert "forward" not in vars(pipe.unet)


def test_state_of_a_run_that_fails_while_its_traceback_is_kept(pipe: ToyPipeline) -> None:
    """The traceback keeps the loop's frame, and with it the dict whose end would tell."""
    failing(pipe, 2)
    callbacks = bind(pipe, CFGCutoff(cutoff_step_index=0))
    kept = None
    try:
        run(pipe, callbacks)
    except ZeroDivisionError as error:
        kept = error
    assert callbacks.state == "failed"
    assert callbacks.wait(0)
    assert kept is not None
    assert kept.__traceback__ is not None
    assert "forward" not in vars(pipe.unet)


def test_state_of_a_run_that_fails_in_a_callback(pipe: ToyPipeline) -> None:
    callbacks = bind(pipe, Once(1, lambda: 1 / 0))
    with pytest.raises(ZeroDivisionError):
        run(pipe, callbacks)
    assert (callbacks.state, callbacks.step) == ("failed", 0)
    run(pipe, callbacks)
    assert callbacks.state == "finished"


def test_cancelled_rather_than_failed_where_both_come(pipe: ToyPipeline) -> None:
    """A callback that fails in the step in which the run is cancelled: its error is raised."""

    def both() -> None:
        callbacks.cancel()
        raise OSError("disk full")

    callbacks = bind(pipe, Once(1, both))
    with pytest.raises(OSError, match="disk full"):
        run(pipe, callbacks)
    assert callbacks.state == "failed"
    run(pipe, callbacks)  # what was asked of the failed run does not reach this one
    assert callbacks.state == "finished"


def test_a_call_that_fails_before_its_first_step_is_no_run(pipe: ToyPipeline) -> None:
    callbacks = bind(pipe)
    with pytest.raises(ValueError, match="not offered"):
        pipe("x", **{**callbacks, "callback_on_step_end_tensor_inputs": ["nothing"]})
    assert callbacks.state == "pending"
    assert callbacks.wait(0.01) is False
    run(pipe, callbacks)
    assert callbacks.state == "finished"


# --- asked before, after, twice


@pytest.mark.parametrize("ended", ["finished", "interrupted", "cancelled", "failed"])
def test_what_is_asked_after_the_end_has_no_effect(pipe: ToyPipeline, ended: str) -> None:
    plain = run(pipe)
    stop = {
        "finished": lambda: None,
        "interrupted": lambda: callbacks.interrupt(),
        "cancelled": lambda: callbacks.cancel(),
        "failed": lambda: 1 / 0,
    }[ended]
    callbacks = bind(pipe, Once(1, stop))
    with contextlib.suppress(GenerationCancelled, ZeroDivisionError):
        run(pipe, callbacks)
    for _ in range(2):
        assert callbacks.interrupt() is False
        assert callbacks.cancel() is False
        assert callbacks.cancel(now=True) is False
    assert callbacks.state == ended
    assert hooked(pipe) == []
    assert np.array_equal(run(pipe, callbacks), plain)


def test_cancel_before_the_call(pipe: ToyPipeline) -> None:
    callbacks = bind(pipe)
    assert callbacks.cancel() is True
    assert callbacks.cancel() is True
    with pytest.raises(GenerationCancelled, match="after step 0"):
        run(pipe, callbacks)
    run(pipe, callbacks)
    assert callbacks.state == "finished"


def test_cancel_now_before_the_call_computes_nothing() -> None:
    pipe = BlockPipeline()
    callbacks = bind(pipe)
    assert callbacks.cancel(now=True) is True
    assert callbacks.cancel(now=True) is True
    with pytest.raises(GenerationCancelled, match="before the end of its first step") as caught:
        run(pipe, callbacks)
    assert (caught.value.step, caught.value.timestep, caught.value.latents) == (-1, None, None)
    assert (callbacks.state, callbacks.step) == ("cancelled", None)
    assert pipe.unet.computed == []
    assert hooked(pipe) == []
    run(pipe, callbacks)
    assert callbacks.state == "finished"


def test_cancel_now_spares_other_calls_of_the_model() -> None:
    """A gate stands on the model, which others may call: a plain run, a run of another binding."""
    pipe = BlockPipeline()
    plain = run(pipe)
    callbacks, other = bind(pipe), bind(pipe)
    callbacks.cancel(now=True)
    assert np.array_equal(run(pipe), plain)
    assert np.array_equal(run(pipe, other), plain)
    assert (callbacks.state, other.state) == ("pending", "finished")
    with pytest.raises(GenerationCancelled):
        run(pipe, callbacks)
    assert hooked(pipe) == []


def test_cancel_that_is_never_run_is_taken_back_by_the_with_block() -> None:
    pipe = BlockPipeline()
    with bind(pipe) as callbacks:
        callbacks.cancel(now=True)
        assert hooked(pipe) != []
    assert hooked(pipe) == []


@pytest.mark.parametrize("first", ["interrupt", "cancel"])
def test_cancel_wins_over_interrupt(pipe: ToyPipeline, first: str) -> None:
    callbacks = bind(pipe)
    asked = [callbacks.interrupt, callbacks.cancel]
    for ask in asked if first == "interrupt" else reversed(asked):
        assert ask() is True
    with pytest.raises(GenerationCancelled):
        run(pipe, callbacks)
    assert callbacks.state == "cancelled"


def test_cancel_wins_over_the_interrupt_callback(pipe: ToyPipeline) -> None:
    callbacks = bind(pipe, Interrupt(1), Once(1, lambda: callbacks.cancel()))
    with pytest.raises(GenerationCancelled, match="after step 1"):
        run(pipe, callbacks)
    plain = run(pipe)
    assert np.array_equal(run(pipe, bind(pipe)), plain)


def test_interrupt_as_often_as_one_likes(pipe: ToyPipeline) -> None:
    keep, answers = Keep(), []
    callbacks = bind(
        pipe, keep, Once(2, lambda: answers.extend(callbacks.interrupt() for _ in range(3)))
    )
    run(pipe, callbacks)
    assert answers == [True] * 3
    assert len(keep.latents) == 3


# --- in mid-step, from another thread


@pytest.mark.parametrize("block", ["down 0", "mid", "up 0"])
def test_cancel_now_raises_at_the_next_block(block: str) -> None:
    pipe, answers = BlockPipeline(), []
    plain = run(pipe)
    pipe.unet.computed.clear()

    def ask(name: str) -> None:
        if name == block and pipe.unet.computed.count(name) == 3:
            other = InThread(lambda: callbacks.cancel(now=True))
            other.join()
            answers.append(other.result)

    pipe.unet.on_block = ask
    keep = Keep()
    callbacks = bind(pipe, keep, CFGCutoff(cutoff_step_index=0))
    with pytest.raises(GenerationCancelled, match="after step 1") as caught:
        run(pipe, callbacks)
    assert answers == [True]
    assert pipe.unet.computed[-1] == block
    assert pipe.unet.computed.count(block) == 3
    assert (callbacks.state, callbacks.step, caught.value.step) == ("cancelled", 1, 1)
    assert np.array_equal(caught.value.latents, keep.latents[1])
    assert hooked(pipe) == []
    assert np.array_equal(run(pipe), plain)


def test_cancel_now_in_the_last_block_takes_effect_at_the_step_end() -> None:
    pipe = BlockPipeline()
    pipe.unet.on_block = lambda name: (
        callbacks.cancel(now=True) if len(pipe.unet.computed) == 10 else None
    )
    callbacks = bind(pipe)
    with pytest.raises(GenerationCancelled, match="after step 1"):
        run(pipe, callbacks)
    assert len(pipe.unet.computed) == 10
    assert hooked(pipe) == []


def test_cancel_turns_into_now(pipe: ToyPipeline) -> None:
    """Who has no patience asks again."""
    pipe = BlockPipeline()

    def ask(name: str) -> None:
        if len(pipe.unet.computed) == 6:
            assert callbacks.cancel() is True
        if len(pipe.unet.computed) == 7:
            assert callbacks.cancel(now=True) is True

    pipe.unet.on_block = ask
    callbacks = bind(pipe)
    with pytest.raises(GenerationCancelled, match="after step 0"):
        run(pipe, callbacks)
    assert len(pipe.unet.computed) == 7


# --- scope


def test_second_binding_of_a_pipeline_is_untouched(pipe: ToyPipeline) -> None:
    first, second = bind(pipe), bind(pipe)
    plain = run(pipe)
    first.interrupt()
    assert np.array_equal(run(pipe, second), plain)
    assert (first.state, second.state) == ("pending", "finished")
    run(pipe, first)
    assert first.state == "interrupted"


def test_two_runs_at_once_are_stopped_apart() -> None:
    pipes = [ToyPipeline(), ToyPipeline()]
    holds = [Hold(1), Hold(1)]
    both = [bind(pipe, hold) for pipe, hold in zip(pipes, holds, strict=True)]
    calls = [InThread(lambda p=p, b=b: run(p, b)) for p, b in zip(pipes, both, strict=True)]
    for hold in holds:
        assert hold.there.wait(WAIT)
    assert both[0].cancel() is True
    for hold in holds:
        hold.go.set()
    for call in calls:
        call.join()
    assert isinstance(calls[0].error, GenerationCancelled)
    assert calls[1].error is None
    assert [b.state for b in both] == ["cancelled", "finished"]
    assert np.array_equal(calls[1].result, run(pipes[0]))


def test_with_block_that_is_left_by_cancel(pipe: ToyPipeline) -> None:
    callbacks = bind(pipe, CFGCutoff(0.1), Once(2, lambda: callbacks.cancel()))
    with pytest.raises(GenerationCancelled), callbacks:
        run(pipe, callbacks)
    assert callbacks.state == "cancelled"
    assert hooked(pipe) == []


# --- wait


def test_wait_for_a_run_that_goes_on_times_out() -> None:
    pipe, hold = ToyPipeline(), Hold(1)
    callbacks = bind(pipe, hold)
    call = InThread(lambda: run(pipe, callbacks))
    assert hold.there.wait(WAIT)
    assert callbacks.wait(0) is False
    assert callbacks.wait(0.01) is False
    assert callbacks.wait(-1) is False
    hold.go.set()
    assert callbacks.wait(WAIT) is True
    call.join()
    assert callbacks.wait() is True
    assert callbacks.wait(0) is True


@pytest.mark.parametrize(
    "ending", ["interrupt", "cancel", "cancel now", "fail", "fail in a callback"]
)
def test_wait_sees_every_end(ending: str) -> None:
    pipe, hold = ToyPipeline(), Hold(1)
    failure = [Once(2, lambda: 1 / 0)] if "callback" in ending else []
    callbacks = bind(pipe, *failure, hold)
    if ending == "fail":
        failing(pipe, 2)
    waiting = InThread(lambda: callbacks.wait(WAIT))
    call = InThread(lambda: run(pipe, callbacks))
    assert hold.there.wait(WAIT)
    if ending == "interrupt":
        callbacks.interrupt()
    elif ending.startswith("cancel"):
        callbacks.cancel(now="now" in ending)
    hold.go.set()
    waiting.join()
    call.join()
    assert waiting.result is True
    assert callbacks.state == {"interrupt": "interrupted", "fail": "failed"}.get(
        ending, "cancelled" if "cancel" in ending else "failed"
    )


def test_wait_for_a_run_that_never_starts(pipe: ToyPipeline) -> None:
    callbacks = bind(pipe)
    assert callbacks.wait(0) is False
    assert callbacks.wait(0.06) is False
    waiting = InThread(lambda: callbacks.wait(WAIT))
    run(pipe, callbacks)  # until it does
    waiting.join()
    assert waiting.result is True


# --- memory


class Traced(StrictTensor):
    __slots__ = ("__weakref__",)


class Swap(Callback):
    """Puts tensors that can be followed into the loop."""

    tensors = ("latents",)

    def __init__(self) -> None:
        self.refs: list[weakref.ref[Any]] = []

    def on_step_end(self, step: Step) -> None:
        fresh = Traced(step["latents"].data)
        self.refs.append(weakref.ref(fresh))
        step["latents"] = fresh

    @property
    def alive(self) -> int:
        gc.collect()
        return sum(ref() is not None for ref in self.refs)


@pytest.mark.parametrize("now", [False, True])
def test_cancel_frees_what_the_run_held(now: bool) -> None:
    pipe, swap = BlockPipeline(), Swap()
    pipe.unet.on_block = lambda name: (
        callbacks.cancel(now) if len(pipe.unet.computed) == 12 else None
    )
    callbacks = bind(pipe, swap)
    with pytest.raises(GenerationCancelled):
        run(pipe, callbacks)
    assert callbacks.state == "cancelled"
    assert len(swap.refs) == (2 if now else 3)
    gc.collect()
    assert swap.alive == 0


def test_kept_error_keeps_the_loop_and_unicb_nothing(pipe: ToyPipeline) -> None:
    """Python ties the loop's frame to the error's traceback; unicb adds nothing to that."""
    swap = Swap()
    callbacks = bind(pipe, swap, CFGCutoff(0.1), Once(3, lambda: callbacks.cancel()))
    kept = None
    try:
        run(pipe, callbacks)
    except GenerationCancelled as error:
        kept = error
    assert kept is not None
    assert hooked(pipe) == []
    # The loop holds its latents and the dict of the step before; of earlier steps, nothing.
    assert swap.alive <= 2
    traceback.clear_frames(kept.__traceback__)
    assert swap.alive == 0
    assert isinstance(kept.latents, np.ndarray)


def test_interrupt_frees_what_the_run_held(pipe: ToyPipeline) -> None:
    swap = Swap()
    callbacks = bind(pipe, swap, Interrupt(2))
    run(pipe, callbacks)
    assert len(swap.refs) == 3
    assert swap.alive == 0


# --- misuse


def test_wait_in_the_run_itself(pipe: ToyPipeline) -> None:
    """It would wait for itself."""
    callbacks = bind(pipe, Once(1, lambda: callbacks.wait(0.01)))
    with pytest.raises(UnicbError, match="wait"):
        run(pipe, callbacks)


def test_error_can_be_sent_elsewhere(pipe: ToyPipeline) -> None:
    """To another process, for example, by a pool."""
    callbacks = bind(pipe, Once(1, lambda: callbacks.cancel()))
    with pytest.raises(GenerationCancelled) as caught:
        run(pipe, callbacks)
    sent = pickle.loads(pickle.dumps(caught.value))
    assert (sent.step, sent.timestep, str(sent)) == (1, caught.value.timestep, str(caught.value))
    assert np.array_equal(sent.latents, caught.value.latents)


def test_observers_do_not_end_a_run() -> None:
    """Who asks for the state from another thread must not take a running loop for one that has
    failed, wherever the loop is."""
    pipe, states = ToyPipeline(), set()
    over = threading.Event()
    callbacks = bind(pipe)

    def watch() -> None:
        while not over.is_set():
            states.add(callbacks.state)

    watching = InThread(watch)
    run(pipe, callbacks, 300)
    over.set()
    watching.join()
    assert "failed" not in states
    assert callbacks.state == "finished"
