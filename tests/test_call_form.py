"""The call form: the pipeline called through its binding, where a run begins and ends inside."""

from __future__ import annotations

import copy
import gc
import pickle
import signal
import threading
import warnings
from typing import Any

import numpy as np
import pytest
from guided import Known
from loops import TwoPasses
from stop_helpers import BlockPipeline, InThread, hooked

from unicb import (
    Callback,
    CFGCutoff,
    GenerationCancelled,
    GuidanceInterval,
    GuidanceSchedule,
    Interrupt,
    PipelineBusyError,
    Run,
    Step,
    bind,
    sibling,
)
from unicb.run import scoped_call
from unicb_numpy.ops import StrictTensor
from unicb_numpy.pipelines import ToyPipeline

TWO_ROWS = StrictTensor(np.zeros((2, 4, 8, 8))), 1.0, StrictTensor(np.ones((2, 4)))
KEYWORDS: dict[str, Any] = {"num_inference_steps": 6}


class Note(Callback):
    """Notes what it is called for, and does something at one step."""

    tensors = ("latents",)

    def __init__(self, do: Any = lambda step: None, at: int = 2) -> None:
        self.do, self.at, self.noted = do, at, []

    def on_run_start(self, run: Run) -> None:
        self.noted.append("start")

    def on_step_end(self, step: Step) -> None:
        self.noted.append(step.index)
        if step.index == self.at:
            self.do(step)

    def on_run_end(self, run: Run) -> None:
        self.noted.append((run.outcome, type(run.error)))


class Early(Note):
    def before_first_step(self, step: Step) -> None:
        self.noted.append("early")


@pytest.mark.parametrize(
    "callback",
    [CFGCutoff(0.4), GuidanceInterval(0.2, 0.7), GuidanceSchedule(3.0), Interrupt(3)],
    ids=lambda one: type(one).__name__,
)
def test_it_does_what_the_keywords_do(pipe: ToyPipeline, callback: Callback) -> None:
    keywords = pipe("x", **KEYWORDS, **bind(pipe, callback))
    callbacks = bind(pipe, callback)
    assert np.array_equal(callbacks("x", **KEYWORDS), keywords)
    assert callbacks.state in ("finished", "interrupted")
    assert hooked(pipe) == []


def test_positional_arguments_and_the_result(pipe: ToyPipeline) -> None:
    plain = pipe("x", 3, 2.0)
    assert np.array_equal(bind(pipe)("x", 3, 2.0), plain)


@pytest.mark.parametrize("kind", [Note, Early])
def test_two_calls_in_a_row(kind: Any) -> None:
    pipe, note = Known(), kind()
    callbacks, early = bind(pipe, note), ["early"] * (kind is Early)
    for _ in range(2):
        callbacks("x", 3)
    assert note.noted == [*early, "start", 0, 1, 2, ("finished", type(None))] * 2
    assert hooked(pipe) == []


def test_several_loops_in_one_call() -> None:
    pipe, note = TwoPasses(), Early()
    callbacks = bind(pipe, note)
    callbacks(["x"], 2)
    assert note.noted == ["early", "start", 0, 1, ("finished", type(None))] * 2
    assert (callbacks.state, hooked(pipe)) == ("finished", [])


@pytest.mark.parametrize("kind", [Note, Early])
def test_an_error_ends_the_run_at_once(kind: Any) -> None:
    """Though its traceback is kept, as a notebook keeps it."""
    pipe = Known()
    plain = pipe("x")

    def fail(step: Step) -> None:
        raise LookupError("disk full")

    note = kind(fail)
    callbacks = bind(pipe, CFGCutoff(cutoff_step_index=0), note)
    with pytest.raises(LookupError) as kept:
        callbacks("x")
    assert note.noted[-1] == ("failed", LookupError)
    assert (callbacks.state, callbacks.step, hooked(pipe)) == ("failed", 1, [])
    assert np.array_equal(pipe("x"), plain)
    note.do = lambda step: None
    callbacks("x")  # a retry
    assert callbacks.state == "finished"
    assert kept.traceback


def test_an_error_in_the_loop(pipe: ToyPipeline) -> None:
    plain, step, count = pipe("x"), pipe.scheduler.step, iter(range(3))
    pipe.scheduler.step = lambda *args: [next(count), step(*args)][1]  # type: ignore[method-assign]
    callbacks = bind(pipe, note := Note(), CFGCutoff(cutoff_step_index=1))
    with pytest.raises(StopIteration) as kept:
        callbacks("x")
    assert note.noted[-1] == ("failed", StopIteration)
    assert (callbacks.state, callbacks.step) == ("failed", 2)
    del pipe.scheduler.step
    assert hooked(pipe) == []
    assert np.array_equal(pipe("x"), plain)
    assert kept.traceback


@pytest.mark.parametrize("kind", [Note, Early])
def test_a_call_that_fails_before_its_loop(pipe: ToyPipeline, kind: Any) -> None:
    callbacks = bind(pipe, note := kind())
    with pytest.raises(TypeError, match="nonsense"):
        callbacks("x", nonsense=1)
    assert (callbacks.state, callbacks.step, note.noted) == ("failed", None, [])
    assert callbacks.wait(0) is True
    assert hooked(pipe) == []
    assert callbacks.interrupt() is False
    callbacks("x")
    assert callbacks.state == "finished"


def test_a_call_without_a_step(pipe: ToyPipeline) -> None:
    callbacks = bind(pipe)
    callbacks("x", num_inference_steps=0)
    assert (callbacks.state, callbacks.step) == ("finished", None)


def test_a_call_that_fails_before_the_pipeline_is_called(
    pipe: ToyPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = Note()
    callbacks = bind(pipe, note)
    with monkeypatch.context() as broken:
        broken.setattr(scoped_call, "source_of", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            callbacks("x", **KEYWORDS)
    assert callbacks.state == "failed"
    callbacks("x", **KEYWORDS)
    assert note.noted[1:-1] == [*range(6)]


@pytest.mark.parametrize("now", [False, True])
def test_cancelled_before_the_call(now: bool) -> None:
    """Nothing is computed, and no prompt encoded."""
    pipe = BlockPipeline()
    pipe.encode_prompt = None  # type: ignore[method-assign,assignment]
    callbacks = bind(pipe)
    assert callbacks.cancel(now)
    with pytest.raises(GenerationCancelled, match="before the end of its first step"):
        callbacks("x")
    assert (callbacks.state, pipe.unet.computed, hooked(pipe)) == ("cancelled", [], [])
    del pipe.encode_prompt
    callbacks("x")  # it is cancelled once
    assert callbacks.state == "finished"


def test_interrupted_before_the_call(pipe: ToyPipeline) -> None:
    callbacks = bind(pipe, note := Note())
    assert callbacks.interrupt()
    callbacks("x", **KEYWORDS)
    assert note.noted == ["start", 0, ("interrupted", type(None))]


@pytest.mark.parametrize("how", ["interrupt", "cancel", "cancel now"])
def test_stopped_from_another_thread_while_it_encodes(how: str) -> None:
    pipe = BlockPipeline()
    encode = pipe.encode_prompt

    def stopping(prompts: Any) -> Any:
        def stop() -> bool:
            return callbacks.interrupt() if how == "interrupt" else callbacks.cancel("now" in how)

        other = InThread(stop)
        other.join()
        assert other.result is True
        assert callbacks.state == "pending"
        return encode(prompts)

    pipe.encode_prompt = stopping  # type: ignore[method-assign]
    callbacks = bind(pipe)
    callbacks_before = callbacks.state
    for _ in range(2):
        if how == "interrupt":
            callbacks("x", **KEYWORDS)
        else:
            with pytest.raises(GenerationCancelled):
                callbacks("x", **KEYWORDS)
        assert callbacks.state == ("interrupted" if how == "interrupt" else "cancelled")
    assert callbacks_before == "pending"
    assert len(pipe.unet.computed) == (0 if how == "cancel now" else 10)
    assert hooked(pipe) == []


def test_first_ctrl_c_interrupts(pipe: ToyPipeline) -> None:
    before = signal.getsignal(signal.SIGINT)
    note = Note(lambda step: signal.raise_signal(signal.SIGINT))
    callbacks = bind(pipe, note, on_sigint="interrupt")
    for _ in range(2):
        callbacks("x", **KEYWORDS)
    assert note.noted == ["start", 0, 1, 2, ("interrupted", type(None))] * 2
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(TypeError, match="nonsense"):
        callbacks("x", nonsense=1)
    assert signal.getsignal(signal.SIGINT) is before


# --- a pipeline whose call is a generator ----------------------------------------------------


class Generates(ToyPipeline):
    """Its call hands over each step's latents."""

    unicb_facts = ToyPipeline.unicb_facts

    def __call__(  # type: ignore[override]
        self, callback_on_step_end: Any, callback_on_step_end_tensor_inputs: Any = ()
    ) -> Any:
        self._num_timesteps, self._guidance_scale = 4, 5.0
        for i in range(4):
            rows = self.unet(
                StrictTensor(np.zeros((2, 4, 8, 8))), 1.0, StrictTensor(np.ones((2, 4)))
            )
            callback_on_step_end(self, i, 1.0, {"latents": StrictTensor(np.zeros((1, 4, 8, 8)))})
            got = yield (i, rows.shape)
        return got


def test_a_generator_is_driven_within_the_run() -> None:
    pipe, note = Generates(), Note()
    callbacks = bind(pipe, note, CFGCutoff(cutoff_step_index=0))
    generated = callbacks()
    assert next(generated)[0] == 0
    assert callbacks.state == "running"
    # In between, the models are everybody's.
    assert pipe.unet(*TWO_ROWS).shape[0] == 2
    with pytest.raises(PipelineBusyError):
        callbacks()
    assert [generated.send(None)[0] for _ in range(3)] == [1, 2, 3]
    with pytest.raises(StopIteration) as end:
        generated.send("done")
    assert end.value.value == "done"
    assert (callbacks.state, hooked(pipe)) == ("finished", [])
    assert note.noted[-1] == ("finished", type(None))


def test_a_generator_that_is_closed_late_leaves_the_next_call_alone() -> None:
    pipe = Generates()
    callbacks = bind(pipe)
    first = callbacks()
    assert len(list(first)) == 4
    assert callbacks.cancel() is False
    second = callbacks()
    assert callbacks.cancel(now=True)  # of the second, before its first step
    first.close()
    del first
    gc.collect()
    with pytest.raises(GenerationCancelled) as caught:
        next(second)
    assert (callbacks.state, caught.value.step) == ("cancelled", -1)  # at once


@pytest.mark.parametrize("steps", [0, 2])
def test_a_generator_that_is_left(steps: int) -> None:
    pipe, note = Generates(), Note()
    callbacks = bind(pipe, note, CFGCutoff(cutoff_step_index=0))
    generated = callbacks()
    for _ in range(steps):
        next(generated)
    del generated
    gc.collect()
    assert (callbacks.state, hooked(pipe)) == ("failed", [])
    assert len(list(callbacks())) == 4


# --- what is refused, and what is said -------------------------------------------------------


@pytest.mark.parametrize("name", ["callback_on_step_end", "callback_on_step_end_tensor_inputs"])
def test_callbacks_belong_into_bind(pipe: ToyPipeline, name: str) -> None:
    callbacks = bind(pipe)
    with pytest.raises(TypeError, match=f"hands over {name} itself"):
        callbacks("x", **{name: None})
    with pytest.raises(TypeError, match="give bind"):
        callbacks("x", **bind(pipe))
    callbacks("x")


def test_a_call_of_the_pipeline_in_its_own_step(pipe: ToyPipeline) -> None:
    seen: list[str] = []

    def again(step: Step) -> None:
        for call in (callbacks, bind(pipe)):
            with pytest.raises(PipelineBusyError, match=r"this ToyPipeline .* unicb.sibling"):
                call("x")
            seen.append(callbacks.state)

    callbacks = bind(pipe, Note(again))
    plain = pipe("x")
    assert np.array_equal(callbacks("x"), plain)
    assert seen == ["running"] * 2
    assert callbacks.state == "finished"


@pytest.mark.parametrize("shares", ["pipeline", "scheduler"])
@pytest.mark.parametrize("outer", ["call", "keywords"])
def test_one_run_at_a_time(shares: str, outer: str) -> None:
    """In another thread, as in this one; once it is over, the other may run."""
    pipe = ToyPipeline()
    other = pipe if shares == "pipeline" else ToyPipeline()
    other.scheduler = pipe.scheduler
    word = "this ToyPipeline" if shares == "pipeline" else "the ToyScheduler of this ToyPipeline"

    def in_thread(step: Step) -> None:
        call = InThread(lambda: bind(other)("y"))
        call.join()
        assert isinstance(call.error, PipelineBusyError)
        assert word in str(call.error)

    callbacks = bind(pipe, Note(in_thread))
    plain, other_plain = pipe("x"), other("y")
    out = callbacks("x") if outer == "call" else pipe("x", **callbacks)
    assert np.array_equal(out, plain)
    assert np.array_equal(bind(other)("y"), other_plain)


def test_a_binding_keeps_its_pipeline(pipe: ToyPipeline) -> None:
    pipe = ToyPipeline()
    plain, callbacks = pipe("x"), bind(pipe)
    del pipe
    gc.collect()
    assert np.array_equal(callbacks("x"), plain)


@pytest.mark.parametrize("callback", [CFGCutoff(0.4), Early()], ids=["waits", "acts early"])
@pytest.mark.parametrize("after", [False, True])
def test_reading_a_binding_changes_nothing(callback: Callback, after: bool) -> None:
    pipe = Known()
    before = signal.getsignal(signal.SIGINT)
    callbacks = bind(pipe, callback, on_sigint="interrupt")
    if after:
        callbacks("x")
    found = callbacks.state, callbacks.step
    read = [
        lambda: dict(callbacks),
        lambda: {**callbacks},
        lambda: dict(callbacks) | {},
        lambda: [*callbacks.items()],
        lambda: repr(callbacks),
        lambda: "callback_on_step_end" in callbacks,
    ]
    for look in read:
        look()
        assert (callbacks.state, callbacks.step) == found
        assert (hooked(pipe), signal.getsignal(signal.SIGINT)) == ([], before)
    keywords = dict(callbacks)
    assert (callbacks.state, callbacks.step) == found
    del keywords
    assert (hooked(pipe), signal.getsignal(signal.SIGINT)) == ([], before)


def test_a_forgotten_pair_of_asterisks_is_said(pipe: ToyPipeline) -> None:
    def forgotten() -> None:
        pipe("x", output_type=bind(pipe, CFGCutoff(0.4)))
        gc.collect()

    with pytest.warns(RuntimeWarning, match=r"never called.*both asterisks") as said:
        forgotten()
    assert len(said) == 1


def test_a_binding_that_is_used_says_nothing(pipe: ToyPipeline) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bind(pipe)("x")
        pipe("x", **bind(pipe))
        gc.collect()


@pytest.mark.parametrize("way", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_binding_is_not_copied(pipe: ToyPipeline, way: Any) -> None:
    callbacks = bind(pipe)
    with pytest.raises(TypeError, match="Send the callbacks"):
        way(callbacks)
    callbacks("x")


# --- siblings --------------------------------------------------------------------------------


def test_a_sibling_shares_models_and_nothing_that_counts(pipe: ToyPipeline) -> None:
    pipe.tokenizer, pipe.image_processor = ["a"], {"b": 1}  # type: ignore[attr-defined]
    other: Any = sibling(pipe)
    assert type(other) is ToyPipeline
    assert other.unet is pipe.unet
    for name in ("scheduler", "tokenizer", "image_processor"):
        assert getattr(other, name) is not getattr(pipe, name)
    plain = pipe("x")
    done: list[Any] = []
    callbacks = bind(pipe, Note(lambda step: done.append(bind(other)("x"))))
    assert np.array_equal(callbacks("x"), plain)
    assert np.array_equal(done[0], plain)


def test_siblings_in_threads(pipe: ToyPipeline) -> None:
    cutoff = CFGCutoff(cutoff_step_index=1)
    pipes = [pipe, *(sibling(pipe) for _ in range(3))]
    right = bind(pipe, cutoff)("x"), pipe("x")
    barrier = threading.Barrier(4)

    def runs(index: int) -> list[Any]:
        barrier.wait()
        bound = [bind(pipes[index], cutoff)] if index % 2 else []
        return [bound[0]("x") if bound else pipes[index]("x") for _ in range(5)]

    calls = [InThread(lambda i=i: runs(i)) for i in range(4)]  # type: ignore[misc]
    for index, call in enumerate(calls):
        call.join()
        assert call.error is None
        assert all(np.array_equal(out, right[0 if index % 2 else 1]) for out in call.result)


def test_siblings_that_cannot_be(pipe: ToyPipeline) -> None:
    from unicb import BackendNotFoundError, UnsupportedPipelineError

    with pytest.raises(BackendNotFoundError):
        sibling(object())
    pipe.tokenizer = threading.Lock()  # type: ignore[attr-defined]
    with pytest.raises(UnsupportedPipelineError, match="its tokenizer, a lock, cannot be copied"):
        sibling(pipe)
    del pipe.tokenizer  # type: ignore[attr-defined]
    pipe.unet.is_cache_enabled = True  # type: ignore[attr-defined]
    with pytest.raises(UnsupportedPipelineError, match=r"caching is enabled on its unet"):
        sibling(pipe)
