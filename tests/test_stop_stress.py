"""Many runs, stopped at random from other threads: each ends as asked, and leaves nothing."""

from __future__ import annotations

import gc
import random
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import loops
import numpy as np
import pytest
from stop_helpers import WAIT, BlockPipeline, InThread, hooked

from unicb import Binding, CFGCutoff, GenerationCancelled, bind
from unicb_numpy.pipelines import ToyPipeline

THREADS, RUNS, STEPS = 8, 25, 12
KEYWORDS: dict[str, Any] = {"num_inference_steps": STEPS, "output_type": "latent"}


class Unflagged(loops.Switched):
    """Its loop reads no flag. The arguments are the toy's."""

    unicb_facts = ToyPipeline.unicb_facts.__class__(
        source="here", denoisers=("unet",), cfg="switch"
    )

    def __call__(  # type: ignore[override]
        self,
        prompt: str,
        num_inference_steps: int = STEPS,
        output_type: str = "latent",
        callback_on_step_end: Any = None,
        callback_on_step_end_tensor_inputs: Any = ("latents",),
    ) -> Any:
        latents, positive, _, timesteps = self.start([prompt], num_inference_steps, 5.0)
        for i, t in enumerate(timesteps):
            time.sleep(1e-5)  # or most runs are over before they are stopped
            noise_pred = self.unet(latents, t, encoder_hidden_states=positive)
            latents = self.scheduler.step(noise_pred, t, latents)
            if callback_on_step_end is not None:
                callback_outputs = callback_on_step_end(self, i, t, {"latents": latents})
                latents = callback_outputs.pop("latents")
        return latents.data


@pytest.fixture
def eager_threads() -> Iterator[None]:
    """Threads take turns a thousand times as often as they do, and garbage is collected at any
    moment."""
    usual, thresholds = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(5e-6)
    gc.set_threshold(20)
    yield
    gc.set_threshold(*thresholds)
    sys.setswitchinterval(usual)


def ask(binding: Binding, how: str) -> bool:
    if how == "interrupt":
        return binding.interrupt(picture="latents")
    return binding.cancel(now="now" in how)


def press(binding: Binding, how: str, wanted: int, over: threading.Event) -> list[bool]:
    """Wait for a moment of the run, and ask for its end; watch it all the while."""
    while not over.is_set():
        state = binding.state
        assert state != "failed", state
        if state == "running" and (binding.step or 0) >= wanted:
            break
        if wanted == -1:
            break
    return [ask(binding, how) for _ in range(2)]


def one_run(pipe: Any, random_numbers: random.Random, by_step: list[Any]) -> str:
    """One run, stopped at random; checks its end, and returns it."""
    how = random_numbers.choice(["none", "interrupt", "cancel", "cancel now", "cancel now"])
    wanted = random_numbers.randrange(-1, STEPS)
    callbacks = [CFGCutoff(cutoff_step_index=STEPS - 1)] * random_numbers.randrange(2)
    binding, over = bind(pipe, *callbacks), threading.Event()
    waiting = InThread(lambda: binding.wait(WAIT))
    pressing = None if how == "none" else InThread(lambda: press(binding, how, wanted, over))
    out = error = None
    try:
        out = pipe("x", **KEYWORDS, **binding)
    except GenerationCancelled as cancelled:
        error = cancelled.with_traceback(None)
    over.set()
    waiting.join()
    asked = [False]
    if pressing is not None:
        pressing.join()
        assert pressing.error is None, pressing.error
        asked = pressing.result
    state = binding.state
    assert waiting.result is True
    assert binding.step is not None or wanted == -1
    if error is not None:
        assert state == "cancelled"
        assert asked[0]
        assert how.startswith("cancel")
        assert error.step < STEPS
        if error.step >= 0:
            assert np.array_equal(error.latents, by_step[error.step])
        else:
            assert (how, wanted) == ("cancel now", -1)
    elif state == "interrupted":
        assert how == "interrupt"
        assert asked[0]
        assert np.array_equal(out, by_step[binding.step])
    else:
        assert state == "finished"
        assert binding.step == STEPS - 1
        # Whoever was told that there is a run to stop has stopped it, unless it was its last step.
        assert how == "none" or not asked[0]
        assert np.array_equal(out, by_step[-1])
    return state


def latents_by_step(pipe: Any) -> list[Any]:
    seen: list[Any] = []

    def look(pipe: Any, index: int, timestep: Any, tensors: Any) -> Any:
        seen.append(tensors["latents"].data.copy())
        return tensors

    pipe("x", **KEYWORDS, callback_on_step_end=look)
    return seen


def runs(kind: Any, seed: int, ends: list[str]) -> None:
    pipe, random_numbers = kind(), random.Random(seed)
    by_step = latents_by_step(pipe)
    for number in range(RUNS):
        ends.append(one_run(pipe, random_numbers, by_step))  # not a count: += loses some
        # Nothing is left, and the next run is its plain self.
        gc.collect(0)
        assert hooked(pipe) == []
        if number % 5 == 0:
            assert np.array_equal(pipe("x", **KEYWORDS), by_step[-1])
    assert np.array_equal(pipe("x", **KEYWORDS), by_step[-1])


@pytest.mark.usefixtures("eager_threads")
def test_many_runs_in_many_threads() -> None:
    before, ends = set(threading.enumerate()), list[str]()
    kinds = [BlockPipeline, ToyPipeline, Unflagged]
    calls = [
        InThread(lambda i=i: runs(kinds[i % 3], i, ends))  # type: ignore[misc]
        for i in range(THREADS)
    ]
    for call in calls:
        call._thread.join(10 * WAIT)
        if call.error is not None:
            raise call.error
        assert not call._thread.is_alive()
    assert len(ends) == THREADS * RUNS
    assert set(ends) == {"finished", "interrupted", "cancelled"}
    assert set(threading.enumerate()) == before


@pytest.mark.usefixtures("eager_threads")
def test_one_run_after_another_on_one_binding() -> None:
    """What is asked of a run reaches that run or none: every other one finishes."""
    pipe = BlockPipeline()
    by_step, random_numbers = latents_by_step(pipe), random.Random(1)
    binding = bind(pipe)
    for number in range(40):
        over = threading.Event()
        how = random_numbers.choice(["interrupt", "cancel", "cancel now"])
        stops = number % 2 == 0

        def watch(how: str = how, over: threading.Event = over) -> list[bool]:
            return press(binding, how, 3, over)

        pressing = InThread(watch) if stops else None
        try:
            out = pipe("x", **KEYWORDS, **binding)
        except GenerationCancelled:
            out = None
        over.set()
        if pressing is not None:
            pressing.join()
            assert pressing.error is None, pressing.error
            assert pressing.result[0] == (binding.state != "finished")
        else:
            assert binding.state == "finished"
            assert np.array_equal(out, by_step[-1])
        assert hooked(pipe) == []
