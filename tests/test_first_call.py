"""before_first_step: a run that begins when its loop first calls a model, and its ends."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any

import pytest
from guided import LOOPS, BatchOfLocal, Inferred, Known, watched
from loops import TwoPasses, UnconditionalFirst
from stop_helpers import BlockPipeline, InThread, hooked

from unicb import (
    Binding,
    Callback,
    GenerationCancelled,
    Run,
    Step,
    UnicbError,
    bind,
    run_async,
    stream,
)
from unicb import UnsupportedPipelineError as Unsupported
from unicb_numpy.pipelines import ToyPipeline


class Early(Callback):
    """Notes what is called, and does something before the first step."""

    tensors = ("latents",)

    def __init__(self, do: Any = lambda step: None) -> None:
        self.do, self.noted = do, []

    def before_first_step(self, step: Step) -> None:
        self.noted.append("early")
        self.do(step)

    def on_run_start(self, run: Run) -> None:
        self.noted.append("start")

    def on_step_end(self, step: Step) -> None:
        self.noted.append(step.index)

    def on_run_end(self, run: Run) -> None:
        self.noted.append("end")


class Plain(Early):
    before_first_step = Callback.before_first_step


def left_on(pipe: Any) -> list[str]:
    gc.collect()
    return hooked(pipe)


def test_order_of_the_calls() -> None:
    early, plain = Early(), Plain()
    pipe = Known()
    callbacks = bind(pipe, plain, early)
    for _ in range(2):
        pipe("x", 2, **callbacks)
    assert early.noted == ["early", "start", 0, 1, "end"] * 2
    assert plain.noted == ["start", 0, 1, "end"] * 2


def test_what_the_step_tells() -> None:
    seen: list[Any] = []

    def look(step: Step) -> None:
        seen.extend([step.index, step.num_timesteps, step.progress, step.is_whole])
        seen.extend([step.guidance_scale, callbacks.state, callbacks.step, step.pipeline is pipe])
        with pytest.raises(LookupError, match="no timestep"):
            _ = step.timestep
        with pytest.raises(LookupError, match="before the first step, there are no tensors"):
            _ = step["latents"]

    pipe = Known()
    callbacks = bind(pipe, Early(look))
    assert callbacks.state == "pending"
    pipe("x", 7, guidance_scale=3.0, **callbacks)
    assert seen == [-1, 7, 0.0, True, 3.0, "running", None, True]


def test_a_scale_that_is_set_holds_from_the_first_step_on() -> None:
    pipe = Known()
    plain = pipe("x", guidance_scale=2.0)

    def assign(step: Step) -> None:
        step.guidance_scale = 2.0

    assert (pipe("x", **bind(pipe, Early(assign))) == plain).all()
    assert pipe.guidance_scale == 5.0


def test_interrupted_before_the_first_step() -> None:
    pipe = Known()
    early = Early(lambda step: step.interrupt())
    callbacks = bind(pipe, early)
    with watched(pipe) as rows:
        pipe("x", **callbacks)
    assert (len(rows), callbacks.state, callbacks.step) == (1, "interrupted", 0)
    assert early.noted == ["early", "start", 0, "end"]
    assert left_on(pipe) == []


@pytest.mark.parametrize("now", [False, True])
def test_cancelled_before_the_first_step(now: bool) -> None:
    pipe = BlockPipeline()
    early = Early(lambda step: callbacks.cancel(now=now))
    callbacks = bind(pipe, early)
    with pytest.raises(GenerationCancelled) as cancelled:
        pipe("x", **callbacks)
    # At once means before the next block of the denoiser.
    assert len(pipe.unet.computed) == (0 if now else 5)
    assert (cancelled.value.step, callbacks.state) == (-1 if now else 0, "cancelled")
    assert cancelled.value.timestep is None or not now
    assert early.noted[-1] == "end"
    assert hooked(pipe) == []


def test_an_exception_reaches_the_caller() -> None:
    def fail(step: Step) -> None:
        raise KeyError("early")

    early, pipe = Early(fail), Known()
    callbacks = bind(pipe, Plain(), early)
    with watched(pipe) as rows, pytest.raises(KeyError, match="early"):
        pipe("x", **callbacks)
    assert rows == []
    assert early.noted == ["early", "end"]
    assert callbacks.state == "failed"
    assert hooked(pipe) == []
    early.do = lambda step: None
    pipe("x", 2, **callbacks)
    assert callbacks.state == "finished"


def test_a_call_that_fails_before_its_denoiser(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, early = Known(), Early()

    def fail(prompts: Any) -> Any:
        raise OSError("no encoder")

    with monkeypatch.context() as broken:
        broken.setattr(pipe, "encode_prompt", fail)
        with pytest.raises(OSError, match="no encoder"):
            pipe("x", **bind(pipe, early))
        callbacks = bind(pipe, early)
        with pytest.raises(OSError, match="no encoder"):
            pipe("x", **callbacks)
        assert callbacks.state == "pending"
    assert left_on(pipe) == []
    pipe("x", 2, **callbacks)
    assert early.noted == ["early", "start", 0, 1, "end"]


def test_asked_for_without_a_call() -> None:
    """A look at the binding is no call, and leaves nothing."""
    pipe = Known()
    callbacks = bind(pipe, Early())
    assert "callback_on_step_end" in callbacks
    assert dict(callbacks).keys() == {*callbacks}
    assert left_on(pipe) == []
    with bind(pipe, Early()) as inside:
        kept = dict(inside)
        assert hooked(pipe) == ["forward of ToyUNet"]
    assert hooked(pipe) == []
    assert kept


def test_keywords_that_are_kept() -> None:
    """Unpacked once, they serve one call: afterwards nothing is left to notice the next by."""
    pipe, early = Known(), Early()
    keywords = dict(bind(pipe, early))
    pipe("x", 2, **keywords)
    assert hooked(pipe) == []
    with pytest.raises(UnicbError, match="unpack it in each call"):
        pipe("x", 2, **keywords)
    assert early.noted == ["early", "start", 0, 1, "end"]
    assert left_on(pipe) == []


def test_a_callback_that_is_wrapped() -> None:
    """Then nobody can tell whose loop it is, before the first step's end."""
    pipe = Known()
    inner = bind(pipe, early := Early())["callback_on_step_end"]
    with pytest.raises(UnicbError, match=r"Early acts before a run's first step, .* as it is"):
        pipe("x", callback_on_step_end=lambda *args: inner(*args))
    assert early.noted == []
    assert hooked(pipe) == []


def test_models_that_are_not_known() -> None:
    class Odd(UnconditionalFirst):
        unicb_facts = None  # type: ignore[assignment]

    with pytest.raises(Unsupported, match="Early acts before the first step, when Odd calls its"):
        bind(Odd(), Early())
    bind(Odd(), Plain())


def test_models_that_its_code_tells() -> None:
    pipe, early = Inferred(), Early()
    pipe(["x"], 2, **bind(pipe, early))
    assert early.noted == ["early", "start", 0, 1, "end"]
    assert left_on(pipe) == []


def test_only_who_acts_early_is_watched_for() -> None:
    there: list[list[str]] = []
    pipe = Known()

    def look(call: int, out: Any) -> Any:
        there.append(hooked(pipe))
        return out

    with watched(pipe, look):
        pipe("x", 1, **bind(pipe, Plain()))
        pipe("x", 1, **bind(pipe, Early()))
    assert there == [[], ["forward of Watched"]]


def test_each_loop_of_a_call() -> None:
    pipe, early = TwoPasses(), Early()
    pipe(["x"], 2, **bind(pipe, early))
    assert early.noted == ["early", "start", 0, 1, "end"] * 2
    assert left_on(pipe) == []


def test_a_denoiser_that_is_called_after_the_last_step() -> None:
    """It is not the first step of anything; the run stays what it was."""

    class Once(BatchOfLocal):
        def __call__(  # type: ignore[override]
            self,
            prompts: Any,
            callback_on_step_end: Any = None,
            callback_on_step_end_tensor_inputs: Any = ("latents",),
        ) -> Any:
            latents, positive, _, timesteps = self.start(prompts, 2, 5.0)
            for i, t in enumerate(timesteps):
                latents = self.unet(latents, t, encoder_hidden_states=positive)
                callback_outputs = callback_on_step_end(self, i, t, {"latents": latents})
                latents = callback_outputs.pop("latents")
            return self.unet(latents, 0.0, encoder_hidden_states=positive).data

    pipe, early = Once(), Early()
    callbacks = bind(pipe, early)
    pipe(["x"], **callbacks)
    assert early.noted == ["early", "start", 0, 1, "end", "early", "end"]
    assert (callbacks.state, callbacks.step) == ("finished", 1)
    assert left_on(pipe) == []


def test_the_loop_of_another_pipeline() -> None:
    pipe, other = Known(), Known()
    other.unet = pipe.unet
    with pytest.raises(UnicbError, match="was called by another pipeline, a Known"):
        other("x", **bind(pipe, Early()))
    assert hooked(pipe) == []


def test_in_use_in_another_thread() -> None:
    """Two calls at once on one binding: the second is refused, before it computes anything."""
    pipe, inside, go = Known(), threading.Event(), threading.Event()

    def hold(step: Step) -> None:
        inside.set()
        assert go.wait(20)

    callbacks = bind(pipe, Early(hold))
    first = InThread(lambda: pipe("x", 3, **callbacks))
    assert inside.wait(20)
    second = Known()
    second.unet = pipe.unet
    with watched(second) as rows, pytest.raises(UnicbError, match="in use by a run"):
        pipe("x", 3, **callbacks)
    assert rows == []
    go.set()
    first.join()


def test_in_a_stream_and_in_an_event_loop() -> None:
    pipe, early = Known(), Early()
    plain = pipe("x", 3)
    with stream(pipe, "x", 3, callbacks=[early]) as events:
        *_, last = events
    assert (last.output == plain).all()
    found = asyncio.run(run_async(pipe, "x", [early], steps=3))
    assert (found == plain).all()
    assert early.noted == ["early", "start", 0, 1, 2, "end"] * 2
    assert left_on(pipe) == []


@pytest.mark.parametrize("kind", LOOPS)
def test_nothing_changes(kind: Any) -> None:
    pipe = kind()
    plain = pipe(["x", "y"])
    assert (pipe(["x", "y"], **bind(pipe, Early())) == plain).all()
    assert left_on(pipe) == []


def test_a_binding_that_is_dropped() -> None:
    pipe: ToyPipeline = Known()
    callbacks: Binding | None = bind(pipe, Early())
    callback = callbacks["callback_on_step_end"]
    callbacks = None
    assert hooked(pipe) == ["forward of ToyUNet"]
    del callback
    assert left_on(pipe) == []
