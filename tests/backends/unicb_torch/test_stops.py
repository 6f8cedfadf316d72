"""Stops on PyTorch: in mid-step, in threads, on compiled models, on classes without a flag."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import stopped
import torch

from unicb import CFGCutoff, GenerationCancelled, Interrupt, bind
from unicb.testing import Case
from unicb_torch import backend
from unicb_torch.harness import harness

#: Entries of the zoo; all but the first without a flag.
TITLES = (
    "StableDiffusionPipeline",
    "StableDiffusionInstructPix2PixPipeline",
    "StableVideoDiffusionPipeline",
    "AuraFlowPipeline",
    "StableDiffusionXLControlNetPAGPipeline",
    "Kandinsky3Pipeline",
    "Lumina2Pipeline",
    "StableCascadePriorPipeline",
    "PIAPipeline",
)


@pytest.mark.parametrize("title", TITLES)
def test_stop_is_exact(title: str) -> None:
    found = stopped.outcome("torch", title)
    assert (found.verdict, found.why) == ("exact", "")
    assert found.way == ("flag" if title == "StableDiffusionPipeline" else "runs out")


@pytest.mark.parametrize(("number", "step"), [(0, 0), (0, 2), (1, 1), (2, 3)])
def test_cancel_in_mid_step(number: int, step: int) -> None:
    stopped.cancel_in_mid_step(harness, "forward", number, step)


def test_many_runs_at_once() -> None:
    stopped.stress(harness, threads=4, runs=6, at_once=True)


def test_hook_that_comes_while_the_module_is_called() -> None:
    """Another thread sets and takes hooks; no call of the module may notice."""
    module, over, errors = torch.nn.Linear(4, 4), threading.Event(), []
    x = torch.ones(1, 4)
    expected = module(x)

    def call() -> None:
        try:
            while not over.is_set():
                assert torch.equal(module(x), expected)
        except BaseException as error:
            errors.append(error)

    def passing(call: Any, args: Any, kwargs: Any) -> Any:
        return call(*args, **kwargs)

    threads = [threading.Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(300):
        remove = backend.hook(module, passing)
        again = backend.hook(module, passing)
        remove()
        again()
    over.set()
    for thread in threads:
        thread.join(stopped.WAIT)
    assert errors == []
    assert not {"forward", "_diffusers_hook"} & set(vars(module))


def test_hooks_from_two_threads() -> None:
    module, errors = torch.nn.Linear(4, 4), []

    def passing(call: Any, args: Any, kwargs: Any) -> Any:
        return call(*args, **kwargs)

    def change() -> None:
        try:
            for _ in range(200):
                backend.hook(module, passing)()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=change) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(stopped.WAIT)
    assert errors == []
    assert not {"forward", "_diffusers_hook"} & set(vars(module))


@pytest.fixture
def _fresh_dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("_fresh_dynamo")
@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("now", [False, True])
def test_compiled_denoiser(in_place: bool, now: bool) -> None:
    """It is left in peace while it computes; the run ends before its next call, or at the step's
    end, and nothing is compiled anew afterwards."""
    pipe, case = harness.build("text2img"), Case("text2img", steps=stopped.STEPS)
    graphs, calls = [], []
    on_call: list[Callable[[], Any]] = []

    def compiler(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)

        def run(*args: Any) -> Any:
            calls.append(len(calls))
            while on_call:
                on_call.pop()()
            return graph.forward(*args)

        return run

    if in_place:
        pipe.unet.compile(backend=compiler, dynamic=False)
    else:
        pipe.unet = torch.compile(pipe.unet, backend=compiler, dynamic=False)
    plain = harness.run(pipe, case)
    compiled = len(graphs)

    def stop(pipe: Any, index: int, timestep: Any, tensors: Any) -> None:
        if index == 1:
            callbacks.cancel(now)

    callbacks = bind(pipe, stop)
    with pytest.raises(GenerationCancelled, match="after step 1"):
        harness.run(pipe, case, **callbacks)
    calls.clear()
    callbacks = bind(pipe)
    on_call.append(lambda: callbacks.cancel(now))
    with pytest.raises(GenerationCancelled, match="after step 0"):
        harness.run(pipe, case, **callbacks)
    assert len(calls) == 1
    callbacks = bind(pipe)
    callbacks.cancel(now)
    with pytest.raises(GenerationCancelled) as caught:
        harness.run(pipe, case, **callbacks)
    assert caught.value.step == (-1 if now else 0)
    assert np.array_equal(harness.run(pipe, case), plain)
    assert len(graphs) == compiled


def test_stop_and_cut_in_one_run() -> None:
    pipe, case = harness.build("text2img"), Case("text2img", prompts=2, steps=stopped.STEPS)
    plain = harness.run(pipe, case)
    before = harness.traces(pipe)
    for step in range(stopped.STEPS):
        callbacks = bind(pipe, CFGCutoff(cutoff_step_index=1), Interrupt(step))
        harness.run(pipe, case, **callbacks)
        assert (callbacks.state, callbacks.step) == ("interrupted", step)
        assert harness.traces(pipe) == before
    assert np.array_equal(harness.run(pipe, case), plain)


def test_cancel_frees_the_latents() -> None:
    """Of the run, only a copy on the host is left."""
    pipe, refs = harness.build("text2img"), []

    def note(pipe: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        fresh = tensors["latents"].clone()
        refs.append(weakref.ref(fresh))
        if index == 2:
            callbacks.cancel()
        return {"latents": fresh}

    callbacks = bind(pipe, note, tensor_inputs=["latents"])
    with pytest.raises(GenerationCancelled) as caught:
        harness.run(pipe, Case("text2img", steps=stopped.STEPS), **callbacks)
    latents = caught.value.latents
    del caught
    gc.collect()
    assert isinstance(latents, np.ndarray)
    assert len(refs) == 3
    assert [ref() for ref in refs] == [None] * 3
