"""Stops: in mid-step, in threads, on classes without a flag."""

from __future__ import annotations

import gc
import random
import threading
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import ways
from here import FORWARD, NAME, backend, framework, harness, on, tensor

from unicb import CFGCutoff, GenerationCancelled, Interrupt, bind
from unicb.testing import Case
from zoo.entry import CASES
from zoo.stops import measure

WAIT = 120.0
STEPS = 4
#: Entries of the zoo; all but the first without a flag.
TITLES = on(
    torch=(
        "StableDiffusionPipeline",
        "StableDiffusionInstructPix2PixPipeline",
        "StableVideoDiffusionPipeline",
        "AuraFlowPipeline",
        "StableDiffusionXLControlNetPAGPipeline",
        "Kandinsky3Pipeline",
        "Lumina2Pipeline",
        "StableCascadePriorPipeline",
        "PIAPipeline",
    ),
    mindspore=(
        "StableDiffusionPipeline",
        "StableDiffusionInstructPix2PixPipeline",
        "LatentConsistencyModelPipeline",
        "Lumina2Pipeline",
    ),
)


@pytest.mark.parametrize("title", TITLES)
def test_stop_is_exact(title: str) -> None:
    """With the first case that the pipeline can do."""
    entry = ways.all_entries(NAME)[title]
    case = next(case for case in CASES if case not in entry.impossible)
    found = measure(entry, ways.framework(NAME), ways.pipeline(NAME, title), CASES[case])
    assert (found.verdict, found.why) == ("exact", "")
    assert found.way == ("flag" if title == "StableDiffusionPipeline" else "runs out")


def blocks(model: Any) -> list[Any]:
    """Of a UNet, in the order in which they are called."""
    return [*model.down_blocks, model.mid_block, *model.up_blocks]


def watched(module: Any, seen: Callable[[], None]) -> None:
    """Have the module call ``seen`` each time that it computes."""
    base = type(module)

    def computed(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen()
        return getattr(base, FORWARD)(self, *args, **kwargs)

    module.__class__ = type(
        base.__name__, (base,), {FORWARD: computed, "__module__": base.__module__}
    )


@pytest.mark.parametrize(
    ("number", "step"),
    on(torch=[(0, 0), (0, 2), (1, 1), (2, 3)], mindspore=[(0, 0), (1, 2)]),
)
def test_cancel_in_mid_step(number: int, step: int) -> None:
    """While one of the denoiser's blocks is computed in that step, another thread cancels: no block
    after it is, and nothing is left."""
    pipe, case = harness.build("rescale"), Case("rescale", steps=STEPS)  # of several blocks
    computed: list[int] = []
    count = len(blocks(pipe.unet))
    assert number < count - 1

    def seen(block: int) -> None:
        computed.append(block)
        if stopping and len(computed) == step * count + number + 1:
            thread = threading.Thread(target=callbacks.cancel, kwargs={"now": True})
            thread.start()
            thread.join(WAIT)

    for block, module in enumerate(blocks(pipe.unet)):
        watched(module, lambda block=block: seen(block))  # type: ignore[misc]
    stopping = False
    plain = harness.run(pipe, case)
    assert computed == [*range(count)] * STEPS
    before, parts = harness.traces(pipe), [(id(type(m)), {*vars(m)}) for m in blocks(pipe.unet)]
    for _ in range(2):  # the second finds the pipeline as it was
        computed.clear()
        stopping = True
        callbacks = bind(pipe)
        with pytest.raises(GenerationCancelled) as caught:
            harness.run(pipe, case, **callbacks)
        stopping = False
        assert computed == [*range(count)] * step + [*range(number + 1)]
        assert caught.value.step == step - 1
        assert (callbacks.state, callbacks.step) == ("cancelled", step - 1 if step else None)
        assert harness.traces(pipe) == before
        assert [(id(type(m)), {*vars(m)}) for m in blocks(pipe.unet)] == parts
        assert np.array_equal(harness.run(pipe, case), plain)


def test_many_runs_in_threads() -> None:
    """Runs that are stopped at random from other threads; a pipeline for each thread. At once, but
    in turn where two at a time crash the framework, also without unicb."""
    threads, runs = on(torch=(4, 6), mindspore=(3, 2))
    turn = threading.Lock() if harness.one_thread else nullcontext()
    case = Case("text2img", steps=STEPS)
    pipes = [harness.build("text2img") for _ in range(threads)]
    by_step = []
    for pipe in pipes:
        seen: list[Any] = []

        def look(
            pipe: Any, index: int, t: Any, tensors: dict[str, Any], seen: list[Any] = seen
        ) -> None:
            seen.append(backend.ops.to_numpy(tensors["latents"]))

        harness.run(pipe, case, **bind(pipe, look, tensor_inputs=["latents"]))
        by_step.append(seen)
    before = [harness.traces(pipe) for pipe in pipes]
    errors: list[BaseException] = []
    ends: list[str] = []

    def work(number: int) -> None:
        random_numbers = random.Random(number)
        try:
            for _ in range(runs):
                with turn:
                    ends.append(_one(pipes[number], by_step[number], random_numbers))
        except BaseException as error:
            errors.append(error)

    alive = set(threading.enumerate())
    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(WAIT)
    if errors:
        raise errors[0]
    assert len(ends) == threads * runs
    assert len(set(ends)) > 1
    assert {t for t in threading.enumerate() if t.name.startswith("Thread-")} <= alive
    for pipe, seen, traces in zip(pipes, by_step, before, strict=True):
        assert harness.traces(pipe) == traces
        assert np.array_equal(harness.run(pipe, case), seen[-1])


def _one(pipe: Any, by_step: list[Any], random_numbers: random.Random) -> str:
    """One run, stopped after a step and a random number of looks at it."""
    how = random_numbers.choice(["interrupt", "cancel", "now"])
    after, looks = random_numbers.randrange(-1, STEPS - 1), random_numbers.randrange(30)
    binding = bind(pipe)
    answers: list[bool] = []
    over = threading.Event()

    def press() -> None:
        while not over.wait(0.001) and (-1 if binding.step is None else binding.step) < after:
            assert binding.state != "failed"
        for _ in range(looks):
            assert binding.state != "failed"
        if how == "interrupt":
            answers.append(binding.interrupt(picture="latents"))
        else:
            answers.append(binding.cancel(how == "now"))

    pressing = threading.Thread(target=press)
    pressing.start()
    out = error = None
    try:
        out = harness.run(pipe, Case("text2img", steps=STEPS), **binding)
    except GenerationCancelled as cancelled:
        error = cancelled
    over.set()
    pressing.join(WAIT)
    state = binding.state
    if error is not None:
        assert (state, answers) == ("cancelled", [True])
        assert error.step < 0 or np.array_equal(error.latents, by_step[error.step])
    else:
        assert state == ("interrupted" if answers == [True] else "finished")
        assert np.array_equal(out, by_step[binding.step or 0])
    return state


def test_hooks_from_two_threads() -> None:
    layer = getattr(framework.nn, on(torch="Linear", mindspore="Dense"))(4, 4)
    x, over, errors = tensor(np.ones((1, 4), np.float32)), threading.Event(), []
    expected, before = backend.ops.to_numpy(layer(x)), (type(layer), sorted(vars(layer)))

    def passing(call: Any, args: Any, kwargs: Any) -> Any:
        return call(*args, **kwargs)

    def change() -> None:
        try:
            while not over.is_set():
                backend.hook(layer, passing)()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=change) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(100):
        assert np.array_equal(backend.ops.to_numpy(layer(x)), expected)
    over.set()
    for thread in threads:
        thread.join(WAIT)
    assert errors == []
    assert type(layer) is before[0]
    assert sorted(vars(layer)) == before[1]


def test_stop_and_cut_in_one_run() -> None:
    pipe, case = harness.build("text2img"), Case("text2img", prompts=2, steps=STEPS)
    plain = harness.run(pipe, case)
    before = harness.traces(pipe)
    for step in range(on(torch=STEPS, mindspore=3)):
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
        harness.run(pipe, Case("text2img", steps=STEPS), **callbacks)
    latents = caught.value.latents
    del caught
    gc.collect()
    assert isinstance(latents, np.ndarray)
    assert len(refs) == 3
    assert [ref() for ref in refs] == [None] * 3
