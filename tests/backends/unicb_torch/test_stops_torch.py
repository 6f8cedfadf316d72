"""Stops on compiled models, and hooks that come and go while modules are called at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from test_composes_compile import unet as small_unet

from unicb import GenerationCancelled, bind
from unicb.testing import Case
from unicb_torch import backend
from unicb_torch.harness import harness

WAIT = 120.0
STEPS = 4


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
        thread.join(WAIT)
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
        thread.join(WAIT)
    assert errors == []
    assert not {"forward", "_diffusers_hook"} & set(vars(module))


@pytest.mark.usefixtures("fresh_dynamo")
@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("now", [False, True])
def test_compiled_denoiser(in_place: bool, now: bool) -> None:
    """It is left in peace while it computes; the run ends before its next call, or at the step's
    end, and nothing is compiled anew afterwards."""
    pipe, case = small_unet()[0], Case("text2img", steps=STEPS)
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
