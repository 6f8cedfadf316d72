"""Stops on a framework: in mid-step, in many runs at once, on classes of the zoo."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import ways

from unicb import GenerationCancelled, Interrupt, bind
from unicb.testing import Case, Harness
from zoo.entry import CASES
from zoo.stops import Stopped, measure

WAIT = 120.0
STEPS = 4


def outcome(name: str, title: str) -> Stopped:
    """What the zoo's entry of that title does, with the first case that it can do."""
    entry = ways.all_entries(name)[title]
    case = next(case for case in CASES if case not in entry.impossible)
    return measure(entry, ways.framework(name), ways.pipeline(name, title), CASES[case])


def blocks(model: Any) -> list[Any]:
    """Of a UNet, in the order in which they are called."""
    return [*model.down_blocks, model.mid_block, *model.up_blocks]


def watched(module: Any, forward: str, seen: Callable[[], None]) -> None:
    """Have the module call ``seen`` each time that it computes."""
    base = type(module)

    def computed(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen()
        return getattr(base, forward)(self, *args, **kwargs)

    module.__class__ = type(
        base.__name__, (base,), {forward: computed, "__module__": base.__module__}
    )


def cancel_in_mid_step(harness: Harness, forward: str, number: int, step: int) -> None:
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
        watched(module, forward, lambda block=block: seen(block))  # type: ignore[misc]
    stopping = False
    plain = harness.run(pipe, case)
    assert computed == [*range(count)] * STEPS
    before, parts = harness.traces(pipe), [set(vars(m)) for m in blocks(pipe.unet)]
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
        assert [set(vars(m)) for m in blocks(pipe.unet)] == parts
        assert np.array_equal(harness.run(pipe, case), plain)


def stress(harness: Harness, threads: int, runs: int, at_once: bool) -> None:
    """Runs that are stopped at random from other threads; a pipeline for each thread.

    Args:
        harness: of the framework.
        threads: how many.
        runs: of each.
        at_once: whether the pipelines run at the same time, or in turn.
    """
    case = Case("text2img", steps=STEPS)
    pipes = [harness.build("text2img") for _ in range(threads)]
    by_step = []
    for pipe in pipes:
        seen: list[Any] = []

        def look(
            pipe: Any, index: int, t: Any, tensors: dict[str, Any], seen: list[Any] = seen
        ) -> None:
            seen.append(harness.backend.ops.to_numpy(tensors["latents"]))

        harness.run(pipe, case, **bind(pipe, look, tensor_inputs=["latents"]))
        by_step.append(seen)
    before = [harness.traces(pipe) for pipe in pipes]
    turn = threading.Lock() if not at_once else None
    errors: list[BaseException] = []
    ends: list[str] = []

    def work(number: int) -> None:
        random_numbers = random.Random(number)
        try:
            for _ in range(runs):
                if turn is not None:
                    with turn:
                        ends.append(_one(harness, pipes[number], by_step[number], random_numbers))
                else:
                    ends.append(_one(harness, pipes[number], by_step[number], random_numbers))
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


def _one(harness: Harness, pipe: Any, by_step: list[Any], random_numbers: random.Random) -> str:
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


def interrupted_then_whole(harness: Harness) -> None:
    """After a stop, runs are what they were."""
    pipe, case = harness.build("text2img"), Case("text2img", steps=STEPS)
    plain = harness.run(pipe, case)
    stopped = harness.run(pipe, case, **bind(pipe, Interrupt(1)))
    assert not np.array_equal(stopped, plain)
    assert np.array_equal(harness.run(pipe, case), plain)
