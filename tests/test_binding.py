"""bind and Binding: what they accept, hand over, refuse and cost."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import loops
import numpy as np
import pytest

from unicb import (
    Callback,
    CFGCutoff,
    GenerationCancelled,
    Interrupt,
    Run,
    Step,
    UnicbError,
    UnsupportedPipelineError,
    bind,
)
from unicb.testing._base import Checks
from unicb_numpy.harness import harness
from unicb_numpy.ops import NumpyOps, StrictTensor
from unicb_numpy.pipelines import ToyPipeline


class Spying(Checks):
    harness = harness


class Note(Callback):
    """Notes the calls it gets."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def on_run_start(self, run: Run) -> None:
        self.events.append("start")

    def on_step_end(self, step: Step) -> None:
        self.events.append(step.index)

    def on_run_end(self, run: Run) -> None:
        self.events.append("end")


def test_is_a_mapping_of_the_two_keywords(pipe: ToyPipeline) -> None:
    callbacks = bind(pipe, CFGCutoff(0.5))
    assert set(callbacks) == {"callback_on_step_end", "callback_on_step_end_tensor_inputs"}
    assert callable(callbacks["callback_on_step_end"])
    assert callbacks["callback_on_step_end_tensor_inputs"] == ["latents"]
    assert "CFGCutoff" in repr(callbacks)


def test_tensor_names_are_merged_in_order_without_duplicates(pipe: ToyPipeline) -> None:
    class Wants(Callback):
        def __init__(self, *tensors: str) -> None:
            self.tensors = tensors

        def on_step_end(self, step: Step) -> None: ...

    callbacks = bind(pipe, Wants("prompt_embeds"), Wants("latents", "prompt_embeds"))
    assert callbacks["callback_on_step_end_tensor_inputs"] == ["prompt_embeds", "latents"]


def test_function_gets_every_offered_tensor_or_those_named(pipe: ToyPipeline) -> None:
    seen: list[set[str]] = []

    def look(_pipe: Any, _i: int, _t: Any, tensors: dict[str, Any]) -> None:
        seen.append(set(tensors))

    pipe("x", num_inference_steps=1, **bind(pipe, look))
    pipe("x", num_inference_steps=1, **bind(pipe, look, tensor_inputs=["latents"]))
    assert seen == [set(pipe._callback_tensor_inputs), {"latents"}]


def test_functions_and_callbacks_mix_in_order(pipe: ToyPipeline) -> None:
    class Double(Callback):
        tensors = ("latents",)

        def on_step_end(self, step: Step) -> None:
            step["latents"] = step["latents"] * 2

    def one(_pipe: Any, _i: int, _t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        return {"latents": tensors["latents"] * 0 + 1}

    def add_in_place(_pipe: Any, _i: int, _t: Any, tensors: dict[str, Any]) -> None:
        tensors["latents"] = tensors["latents"] + 3

    callbacks = bind(pipe, one, Double(), add_in_place, Double())
    out = pipe("x", output_type="latent", **callbacks)
    assert (out == 10).all()


@pytest.mark.parametrize("bad", [3, "x", None, CFGCutoff])
def test_things_that_are_no_callbacks(pipe: ToyPipeline, bad: Any) -> None:
    with pytest.raises(TypeError, match=r"bind\(\) takes"):
        bind(pipe, bad)


def test_unknown_tensor_of_a_callback(pipe: ToyPipeline) -> None:
    class Wants(Callback):
        tensors = ("image_latents",)

        def on_step_end(self, step: Step) -> None: ...

    with pytest.raises(UnsupportedPipelineError) as caught:
        bind(pipe, Wants())
    for part in ("ToyPipeline", "'image_latents'", "latents, prompt_embeds"):
        assert part in str(caught.value)


def test_unknown_tensor_without_a_function_to_hand_it_to(pipe: ToyPipeline) -> None:
    with pytest.raises(UnsupportedPipelineError, match="lattents"):
        bind(pipe, CFGCutoff(0.4), tensor_inputs=["lattents"])


@pytest.mark.parametrize("names", ["latents", [3], iter(["latents"]), 3])
def test_tensor_inputs_must_be_names(pipe: ToyPipeline, names: Any) -> None:
    with pytest.raises(TypeError, match="list of names"):
        bind(pipe, tensor_inputs=names)


def test_tensors_as_a_string(pipe: ToyPipeline) -> None:
    class Sloppy(Callback):
        tensors = "latents"

        def on_step_end(self, step: Step) -> None: ...

    with pytest.raises(TypeError, match="is the string 'latents'"):
        bind(pipe, Sloppy())


def test_pipeline_that_calls_no_callback() -> None:
    class Silent(ToyPipeline):
        def __call__(self, prompt: str, **kwargs: Any) -> Any:  # type: ignore[override]
            return super().__call__(prompt)

    with pytest.raises(UnsupportedPipelineError, match="Silent calls no callback"):
        bind(Silent())


def test_step_only_shows_declared_tensors(pipe: ToyPipeline) -> None:
    class Nosy(Callback):
        tensors = ("latents",)

        def on_step_end(self, step: Step) -> None:
            step["prompt_embeds"]

    with pytest.raises(LookupError, match="declares latents"):
        pipe("x", **bind(pipe, Nosy()))


def test_step_takes_tensors_only(pipe: ToyPipeline) -> None:
    class Wrong(Callback):
        tensors = ("latents",)

        def on_step_end(self, step: Step) -> None:
            step["latents"] = step.ops.to_numpy(step["latents"])

    with pytest.raises(TypeError, match="from_numpy"):
        pipe("x", **bind(pipe, Wrong()))


def test_no_op_callback_costs_no_tensor_work_and_no_synchronisation(
    pipe: ToyPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A timestep that is a device tensor synchronises when it is read as a number."""
    touched: list[str] = []

    class NoOp(Callback):
        tensors = ("latents",)

        def on_step_end(self, step: Step) -> None: ...

    class DeviceNumber:
        def __float__(self) -> float:
            touched.append("timestep")
            return 0.0

    callback = bind(pipe, NoOp())["callback_on_step_end"]
    pipe("x", num_inference_steps=2)
    for name in ("chunk", "matmul", "clamp", "to_uint8", "to_numpy", "from_numpy"):
        monkeypatch.setattr(NumpyOps, name, lambda *_, name=name: touched.append(name))
    for name in ("__getitem__", "reshape", "__mul__", "__add__"):
        monkeypatch.setattr(StrictTensor, name, lambda *_, name=name: touched.append(name))
    latents = StrictTensor(np.zeros((1, 4, 8, 8)))
    for index in range(2):
        out = callback(pipe, index, DeviceNumber(), {"latents": latents})
        assert out["latents"] is latents
    assert touched == []


def test_lifecycle_of_a_run(pipe: ToyPipeline) -> None:
    note = Note()
    callbacks = bind(pipe, note)
    for _ in range(2):
        pipe("x", num_inference_steps=2, **callbacks)
    assert note.events == ["start", 0, 1, "end"] * 2


def test_run_end_is_told_after_a_failure_in_the_loop(pipe: ToyPipeline) -> None:
    note = Note()
    pipe.scheduler.step = lambda *_: 1 / 0  # type: ignore[method-assign,assignment]
    with pytest.raises(ZeroDivisionError):
        pipe("x", **bind(pipe, note))
    assert note.events == []  # no step ended, so no run began

    steps = iter([StrictTensor(np.zeros((1, 4, 8, 8)))])
    pipe.scheduler.step = lambda *_: next(steps)  # type: ignore[method-assign,assignment]
    with pytest.raises(StopIteration):
        pipe("x", **bind(pipe, note))
    gc.collect()
    assert note.events == ["start", 0, "end"]


def test_failing_run_end_leaves_no_hook(pipe: ToyPipeline) -> None:
    """Whatever a callback raises at the end of a run, the pipeline is put back, and the other
    callbacks are told."""

    class FailAtEnd(Note):
        def on_run_end(self, run: Run) -> None:
            super().on_run_end(run)
            raise OSError("disk full")

    first, second = FailAtEnd(), FailAtEnd()
    callbacks = bind(pipe, first, second, CFGCutoff(cutoff_step_index=0))
    with pytest.raises(OSError, match="disk full"):
        pipe("x", num_inference_steps=2, **callbacks)
    assert first.events == second.events == ["start", 0, 1, "end"]
    assert "forward" not in vars(pipe.unet)


def test_no_run_to_interrupt_after_a_failure(pipe: ToyPipeline) -> None:
    steps = iter([StrictTensor(np.zeros((1, 4, 8, 8)))])
    pipe.scheduler.step = lambda *_: next(steps)  # type: ignore[method-assign,assignment]
    callbacks = bind(pipe)
    with pytest.raises(StopIteration):
        pipe("x", **callbacks)
    gc.collect()
    assert callbacks.interrupt() is False
    assert callbacks.cancel() is False


def test_guidance_scale_that_the_loop_does_not_read() -> None:
    """Setting a scale of which the loop holds a copy is refused, where that is known."""

    class StableDiffusionXLControlNetPipeline(ToyPipeline):
        pass

    class Lower(Callback):
        def on_step_end(self, step: Step) -> None:
            step.guidance_scale = 2.0

    pipe = StableDiffusionXLControlNetPipeline()
    with pytest.raises(UnsupportedPipelineError, match="a new value would change nothing"):
        pipe("x", **bind(pipe, Lower()))


def test_run_end_is_told_after_a_failure_in_a_later_callback(pipe: ToyPipeline) -> None:
    note = Note()

    def fail(*_: Any) -> None:
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        pipe("x", **bind(pipe, note, fail))
    assert note.events == ["start", 0, "end"]


def test_two_threads_on_one_binding(pipe: ToyPipeline) -> None:
    """The second run is refused; the first goes on to its end."""
    inside, go_on = threading.Event(), threading.Event()
    results: list[Any] = []

    class Wait(Callback):
        def on_step_end(self, step: Step) -> None:
            if step.index == 1:
                inside.set()
                go_on.wait(10)

    callbacks = bind(pipe, Wait())
    thread = threading.Thread(target=lambda: results.append(pipe("x", **callbacks)))
    thread.start()
    assert inside.wait(10)
    # Only the step end of a second run: its whole call would overwrite the state that pipelines
    # keep of the first.
    with pytest.raises(UnicbError, match="in use by a run"):
        callbacks["callback_on_step_end"](pipe, 0, 0.0, {})
    go_on.set()
    thread.join(10)
    assert len(results) == 1


def test_binding_keeps_no_run_alive(pipe: ToyPipeline) -> None:
    """The last latents of a run are freed with it, whoever keeps the binding."""
    kept: list[weakref.ref[Any]] = []

    class Traced(StrictTensor):
        __slots__ = ("__weakref__",)

    class Swap(Callback):
        tensors = ("latents",)

        def on_step_end(self, step: Step) -> None:
            fresh = Traced(step["latents"].data)
            kept.append(weakref.ref(fresh))
            step["latents"] = fresh

    callbacks = bind(pipe, Swap())
    pipe("x", num_inference_steps=3, **callbacks)
    gc.collect()
    assert [ref() for ref in kept] == [None] * 3


@pytest.mark.parametrize("hand_on", [lambda outputs: outputs, dict], ids=["same", "copy"])
def test_wrapped_callback(pipe: ToyPipeline, hand_on: Any) -> None:
    """A wrapper may hand on the dict that it gets, or a copy: the loop is running all the same."""
    callbacks = bind(pipe, CFGCutoff(cutoff_step_index=0))
    inner = callbacks["callback_on_step_end"]
    cut = pipe("x", **callbacks)
    wrapped = pipe("x", callback_on_step_end=lambda *args: hand_on(inner(*args)))
    assert (wrapped == cut).all()
    assert "forward" not in vars(pipe.unet)


def test_cancel_carries_step_timestep_and_latents(pipe: ToyPipeline) -> None:
    class Cancel(Callback):
        def on_step_end(self, step: Step) -> None:
            if step.index == 3:
                assert callbacks.cancel()

    callbacks = bind(pipe, Cancel())
    with pytest.raises(GenerationCancelled, match="after step 3") as caught:
        pipe(["x", "y"], num_inference_steps=10, **callbacks)
    assert caught.value.timestep == pytest.approx(700.0)
    assert caught.value.latents.shape == (2, 4, 8, 8)
    assert callbacks.cancel() is False


def test_pipeline_without_interrupt_flag() -> None:
    """Its loop runs out, if its denoiser is known; or else it is refused."""
    ours = {"__dict__", "__weakref__", "interrupt"}
    members = {name: value for name, value in vars(ToyPipeline).items() if name not in ours}
    unknown = type("ToyPipeline", (), {**members, "unicb_facts": None})()
    for ask in (lambda: bind(unknown, Interrupt(3)), lambda: bind(unknown).interrupt()):
        with pytest.raises(UnsupportedPipelineError, match="reads no interrupt flag"):
            ask()
    pipe = loops.TwoPasses()
    with Spying().spied(pipe) as rows:
        pipe(["x"], **bind(pipe, Interrupt(3)))
    assert rows == [2] * 4


def test_each_pass_of_a_call_is_a_run() -> None:
    """A call with several loops, as with FreeInit: guidance is cut in each, and the handle holds
    for all of them."""
    pipe = loops.TwoPasses()
    seen: list[int] = []

    class Cancel(Callback):
        def on_step_end(self, step: Step) -> None:
            seen.append(step.index)
            if len(seen) == 7:
                assert callbacks.cancel()

    callbacks = bind(pipe, CFGCutoff(cutoff_step_index=1))
    with Spying().spied(pipe) as rows:
        pipe(["x"], **callbacks)
    assert rows == [2, 2, 1, 1, 1] * 2
    callbacks = bind(pipe, Cancel())
    with pytest.raises(GenerationCancelled) as caught:
        pipe(["x"], **callbacks)
    assert seen == [0, 1, 2, 3, 4, 0, 1]
    assert caught.value.step == 1


def test_pipeline_that_hands_its_callback_on() -> None:
    class Outer(ToyPipeline):
        unicb_facts = None  # type: ignore[assignment]

        def __call__(self, *args: Any, callback_on_step_end: Any = None, **kwargs: Any) -> Any:  # type: ignore[override]
            inside = ToyPipeline()
            return inside(*args, callback_on_step_end=callback_on_step_end, **kwargs)

    with pytest.raises(UnsupportedPipelineError, match="hands it on to a pipeline inside"):
        bind(Outer())
