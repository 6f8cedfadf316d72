"""Stops on MindSpore: in mid-step, in threads, on classes without a flag."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import numpy as np
import pytest
import stopped
from mindspore import Tensor, nn

from unicb import CFGCutoff, GenerationCancelled, Interrupt, bind
from unicb.testing import Case
from unicb_mindspore import backend
from unicb_mindspore.harness import harness

#: Entries of the zoo; all but the first without a flag.
TITLES = (
    "StableDiffusionPipeline",
    "StableDiffusionInstructPix2PixPipeline",
    "LatentConsistencyModelPipeline",
    "Lumina2Pipeline",
)


@pytest.mark.parametrize("title", TITLES)
def test_stop_is_exact(title: str) -> None:
    found = stopped.outcome("mindspore", title)
    assert (found.verdict, found.why) == ("exact", "")
    assert found.way == ("flag" if title == "StableDiffusionPipeline" else "runs out")


@pytest.mark.parametrize(("number", "step"), [(0, 0), (1, 2)])
def test_cancel_in_mid_step(number: int, step: int) -> None:
    stopped.cancel_in_mid_step(harness, "construct", number, step)


def test_many_runs_in_threads() -> None:
    """One run after another, by turns in threads. At once, MindSpore 2.7 crashes on a CPU, also
    without unicb."""
    stopped.stress(harness, threads=3, runs=2, at_once=False)


def test_hooks_from_two_threads() -> None:
    cell, over, errors = nn.Dense(4, 4), threading.Event(), []
    x = Tensor(np.ones((1, 4), np.float32))
    expected = cell(x).asnumpy()

    def passing(call: Any, args: Any, kwargs: Any) -> Any:
        return call(*args, **kwargs)

    def change() -> None:
        try:
            while not over.is_set():
                backend.hook(cell, passing)()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=change) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(100):
        assert np.array_equal(cell(x).asnumpy(), expected)
    over.set()
    for thread in threads:
        thread.join(stopped.WAIT)
    assert errors == []
    assert not {"construct", "_diffusers_hook"} & set(vars(cell))


def test_stop_and_cut_in_one_run() -> None:
    pipe, case = harness.build("text2img"), Case("text2img", prompts=2, steps=stopped.STEPS)
    plain = harness.run(pipe, case)
    before = harness.traces(pipe)
    for step in (0, 1, 2):
        callbacks = bind(pipe, CFGCutoff(cutoff_step_index=1), Interrupt(step))
        harness.run(pipe, case, **callbacks)
        assert (callbacks.state, callbacks.step) == ("interrupted", step)
        assert harness.traces(pipe) == before
    assert np.array_equal(harness.run(pipe, case), plain)


def test_cancel_frees_the_latents() -> None:
    """Of the run, only a copy on the host is left."""
    pipe, refs = harness.build("text2img"), []

    def note(pipe: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        fresh = tensors["latents"] * 1.0
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
