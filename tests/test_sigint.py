"""Ctrl-C as an interrupt: the first, the second, and what it does afterwards."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from scheduled import Scheduler
from stop_helpers import InThread, hooked
from test_loop_by_hand import in_a_batch

from unicb import Callback, CFGCutoff, GenerationCancelled, Loop, Step, UnicbError, bind
from unicb_numpy.pipelines import ToyPipeline, ToyUNet

KEYWORDS: dict[str, Any] = {"num_inference_steps": 6, "output_type": "latent"}


def press() -> None:
    """Ctrl-C; the handler has run when it returns."""
    signal.raise_signal(signal.SIGINT)


class Do(Callback):
    """Calls a function at the ends of some steps."""

    def __init__(self, function: Callable[[], Any], *indices: int) -> None:
        self.function, self.indices = function, indices
        self.seen: list[int] = []

    def on_step_end(self, step: Step) -> None:
        self.seen.append(step.index)
        if step.index in self.indices:
            self.function()


@pytest.fixture(autouse=True)
def before() -> Iterator[Callable[..., Any]]:
    """The handler that is there before, whatever this process was started with."""

    def usual(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    found = signal.signal(signal.SIGINT, usual)
    yield usual
    left = signal.signal(signal.SIGINT, found)
    assert left is usual, f"{left} is left as the handler"


def handler() -> Any:
    return signal.getsignal(signal.SIGINT)


def test_loop_of_ones_own(before: Any) -> None:
    """It runs out as a pipeline does, and the handler is put back at the end of the block."""
    unet, scheduler, do = ToyUNet(), Scheduler(), Do(press, 2)
    callbacks = bind(Loop(unet=unet, scheduler=scheduler), do, on_sigint="interrupt")
    with callbacks:
        in_a_batch(unet, scheduler)
    assert do.seen == [0, 1, 2]
    assert (callbacks.state, handler()) == ("interrupted", before)


def test_first_interrupts(pipe: ToyPipeline, before: Any) -> None:
    plain = pipe("x", **KEYWORDS)
    do = Do(press, 2)
    callbacks = bind(pipe, do, on_sigint="interrupt")
    assert handler() is before
    pipe("x", **KEYWORDS, **callbacks)
    assert do.seen == [0, 1, 2]
    assert (callbacks.state, handler()) == ("interrupted", before)
    assert np.array_equal(pipe("x", **KEYWORDS), plain)


def test_second_raises(pipe: ToyPipeline, before: Any) -> None:
    def twice() -> None:
        press()
        assert handler() is before  # so that the second does what it did
        press()

    callbacks = bind(pipe, CFGCutoff(cutoff_step_index=0), Do(twice, 2), on_sigint="interrupt")
    with pytest.raises(KeyboardInterrupt):
        pipe("x", **callbacks)
    assert callbacks.state == "failed"
    assert hooked(pipe) == []
    assert handler() is before


def test_second_in_the_next_step_raises(pipe: ToyPipeline, before: Any) -> None:
    """In the middle of the step after the first, which the denoiser computes."""
    forward = pipe.unet.forward
    calls: list[int] = []

    def pressing(*args: Any, **kwargs: Any) -> Any:
        calls.append(len(calls))
        if len(calls) == 3:
            press()
            press()
        return forward(*args, **kwargs)

    pipe.unet.forward = pressing  # type: ignore[method-assign]
    callbacks = bind(pipe, on_sigint="interrupt")
    with pytest.raises(KeyboardInterrupt):
        pipe("x", **callbacks)
    assert (callbacks.state, callbacks.step) == ("failed", 1)


def test_before_the_first_step_has_ended(pipe: ToyPipeline) -> None:
    """While it encodes the prompt: the run ends after its first step."""
    encode = pipe.encode_prompt

    def pressing(prompts: Any) -> Any:
        if prompts == ["x"]:
            press()
        return encode(prompts)

    pipe.encode_prompt = pressing  # type: ignore[method-assign]
    do = Do(lambda: None)
    callbacks = bind(pipe, do, on_sigint="interrupt")
    pipe("x", **KEYWORDS, **callbacks)
    assert do.seen == [0]
    assert callbacks.state == "interrupted"


@pytest.mark.parametrize("index", [0, 5])
def test_at_the_first_and_the_last_step(pipe: ToyPipeline, index: int) -> None:
    do = Do(press, index)
    callbacks = bind(pipe, do, on_sigint="interrupt")
    pipe("x", **KEYWORDS, **callbacks)
    assert do.seen == list(range(index + 1))


def test_between_two_calls_it_does_what_it_did(pipe: ToyPipeline) -> None:
    do = Do(press)
    callbacks = bind(pipe, do, on_sigint="interrupt")
    with pytest.raises(KeyboardInterrupt):
        press()
    pipe("x", **KEYWORDS, **callbacks)
    with pytest.raises(KeyboardInterrupt):
        press()
    pipe("x", **KEYWORDS, **callbacks)
    assert len(do.seen) == 12
    do.indices = (1,)
    pipe("x", **KEYWORDS, **callbacks)
    assert len(do.seen) == 14


@pytest.mark.parametrize("ending", ["finish", "interrupt", "cancel", "fail", "fail in the loop"])
def test_handler_is_put_back(pipe: ToyPipeline, before: Any, ending: str) -> None:
    during: list[bool] = []

    def end() -> None:
        during.append(handler() is not before)
        if ending == "interrupt":
            callbacks.interrupt()
        elif ending == "cancel":
            callbacks.cancel()
        elif ending == "fail":
            raise OSError("disk full")
        elif ending == "fail in the loop":
            pipe.scheduler.step = None  # type: ignore[method-assign,assignment]

    callbacks = bind(pipe, Do(end, 1), on_sigint="interrupt")
    raised = {"cancel": GenerationCancelled, "fail": OSError, "fail in the loop": TypeError}
    if ending in raised:
        with pytest.raises(raised[ending]):
            pipe("x", **KEYWORDS, **callbacks)
    else:
        pipe("x", **KEYWORDS, **callbacks)
    assert during == [True]
    assert handler() is before


def test_call_that_fails_before_its_first_step(pipe: ToyPipeline, before: Any) -> None:
    """Nobody tells unicb. The handler lets Ctrl-C through, and goes with its binding."""
    callbacks = bind(pipe, on_sigint="interrupt")
    with pytest.raises(TypeError, match="nonsense"):
        pipe("x", nonsense=1, **callbacks)
    with pytest.raises(KeyboardInterrupt):
        press()
    assert handler() is before
    with pytest.raises(TypeError, match="nonsense"):
        pipe("x", nonsense=1, **callbacks)
    del callbacks
    gc.collect()
    assert handler() is before


def test_call_that_fails_early_does_not_stop_the_next(pipe: ToyPipeline) -> None:
    do = Do(lambda: None)
    callbacks = bind(pipe, do, on_sigint="interrupt")
    with pytest.raises(TypeError, match="nonsense"):
        pipe("x", nonsense=1, **callbacks)
    with pytest.raises(KeyboardInterrupt):
        press()
    pipe("x", **KEYWORDS, **callbacks)
    assert len(do.seen) == 6


def test_with_block_puts_it_back(pipe: ToyPipeline, before: Any) -> None:
    with bind(pipe, on_sigint="interrupt") as callbacks:
        keywords = dict(callbacks)
        with pytest.raises(TypeError, match="nonsense"):
            pipe("x", nonsense=1, **keywords)
        assert handler() is not before  # as long as the keywords are there
    assert handler() is before
    assert keywords


def test_run_within_a_run(pipe: ToyPipeline, before: Any) -> None:
    """The inner is stopped by the first, and the outer by the one after it."""
    inner_pipe, seen = ToyPipeline(), []

    def call_inner() -> None:
        do = Do(press, 1)
        inner = bind(inner_pipe, do, on_sigint="interrupt")
        inner_pipe("x", **KEYWORDS, **inner)
        seen.append((inner.state, do.seen, outer.state))
        press()

    do = Do(call_inner, 2)
    outer = bind(pipe, do, on_sigint="interrupt")
    pipe("x", **KEYWORDS, **outer)
    assert seen == [("interrupted", [0, 1], "running")]
    assert (outer.state, do.seen) == ("interrupted", [0, 1, 2])
    assert handler() is before


def test_handlers_that_go_in_another_order(before: Any) -> None:
    """Two calls that fail early leave theirs; the first is called again, and is on top again."""
    pipes = [ToyPipeline(), ToyPipeline()]
    do = Do(press, 1)
    first, second = bind(pipes[0], do, on_sigint="interrupt"), bind(pipes[1], on_sigint="interrupt")
    for pipe, callbacks in zip(pipes, (first, second), strict=True):
        with pytest.raises(TypeError, match="nonsense"):
            pipe("x", nonsense=1, **callbacks)
    pipes[0]("x", **KEYWORDS, **first)
    assert (first.state, second.state, do.seen) == ("interrupted", "pending", [0, 1])
    with pytest.raises(KeyboardInterrupt):
        press()
    assert handler() is before


def test_one_that_goes_from_below(before: Any) -> None:
    pipe, do = ToyPipeline(), Do(lambda: None)
    below, above = bind(pipe, on_sigint="interrupt"), bind(pipe, do, on_sigint="interrupt")
    for callbacks in (below, above):
        with pytest.raises(TypeError, match="nonsense"):
            pipe("x", nonsense=1, **callbacks)
    with below:
        pass
    pipe("x", **KEYWORDS, **above)
    assert handler() is before


def test_handler_that_somebody_else_installs_stays(pipe: ToyPipeline, before: Any) -> None:
    pressed: list[int] = []

    def install() -> None:
        signal.signal(signal.SIGINT, lambda number, frame: pressed.append(number))

    callbacks = bind(pipe, Do(install, 1), on_sigint="interrupt")
    pipe("x", **KEYWORDS, **callbacks)
    press()
    assert pressed == [signal.SIGINT]
    signal.signal(signal.SIGINT, before)


def test_handler_that_ignores(pipe: ToyPipeline, before: Any) -> None:
    """A process in the background ignores Ctrl-C, and still does so afterwards."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    callbacks = bind(pipe, on_sigint="interrupt")
    pipe("x", **KEYWORDS, **callbacks)
    assert handler() is signal.SIG_IGN
    press()
    signal.signal(signal.SIGINT, before)


def test_without_it_ctrl_c_is_left_alone(pipe: ToyPipeline) -> None:
    with pytest.raises(KeyboardInterrupt):
        pipe("x", **bind(pipe, Do(press, 1)))


def test_other_threads_are_refused(pipe: ToyPipeline) -> None:
    call = InThread(lambda: bind(pipe, on_sigint="interrupt"))
    call.join()
    assert isinstance(call.error, UnicbError)
    for part in ("main thread", "interrupt()"):
        assert part in str(call.error)
    callbacks = bind(pipe, on_sigint="interrupt")
    call = InThread(lambda: pipe("x", **callbacks))
    call.join()
    assert isinstance(call.error, UnicbError)
    assert callbacks.state == "pending"


@pytest.mark.parametrize("word", ["cancel", "", True])
def test_other_words_are_refused(pipe: ToyPipeline, word: Any) -> None:
    with pytest.raises(ValueError, match="'interrupt' or None"):
        bind(pipe, on_sigint=word)


def test_ctrl_c_while_another_thread_stops_the_run(pipe: ToyPipeline, before: Any) -> None:
    def both() -> None:
        other = threading.Thread(target=callbacks.cancel)
        other.start()
        press()
        other.join()

    callbacks = bind(pipe, Do(both, 1), on_sigint="interrupt")
    with pytest.raises(GenerationCancelled):
        pipe("x", **KEYWORDS, **callbacks)
    assert handler() is before


SCRIPT = """
    import os, signal
    from unicb import bind
    from unicb_numpy.pipelines import ToyPipeline, ToyUNet

    def kill(pipe, index, timestep, tensors):
        if index >= 2:
            os.kill(os.getpid(), signal.SIGINT)

    pipe = ToyPipeline()
    callbacks = bind(pipe, kill, on_sigint="interrupt")
    out = pipe("x", num_inference_steps=6, **callbacks)
    print(callbacks.state, callbacks.step, out.shape, flush=True)
    os.kill(os.getpid(), signal.SIGINT)
    print("not reached")
"""


@pytest.mark.skipif(os.name != "posix", reason="os.kill sends no Ctrl-C there")
def test_real_signal_in_a_process_of_its_own() -> None:
    env = {**os.environ, "PYTHONSAFEPATH": "1"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT)],
        capture_output=True,
        text=True,
        env=env,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        check=False,
    )
    assert done.stdout.split() == ["interrupted", "2", "(1,", "8,", "8,", "4)"]
    assert "KeyboardInterrupt" in done.stderr
    assert done.returncode != 0
