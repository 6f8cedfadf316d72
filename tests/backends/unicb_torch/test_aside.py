"""Work beside a run: what it sees, on which stream, and what it leaves alone."""

from __future__ import annotations

import threading
import weakref
from typing import Any

import pytest
import torch

from unicb.latents import ColourMap, LatentFormat
from unicb_torch import backend
from unicb_torch.aside import fork_rng

aside = backend.aside

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_tensors_are_as_they_were() -> None:
    x, y = torch.zeros(3), torch.ones(3)
    result = aside(lambda _, *tensors: [tensor.tolist() for tensor in tensors], [x, y, x])
    x += 5  # as a loop may do with its latents
    assert result() == [[0.0] * 3, [1.0] * 3, [0.0] * 3]


def test_a_tensor_that_is_there_twice_is_copied_once() -> None:
    x = torch.zeros(3)
    first, second = aside(lambda _, *tensors: tensors, [x, x])()
    assert first is second
    assert first is not x


def test_a_tensor_is_copied_again_only_if_it_has_changed() -> None:
    x = torch.zeros(3)
    copies = [aside(lambda _, tensor: tensor, [x])() for _ in range(2)]
    x += 1
    copies.append(aside(lambda _, tensor: tensor, [x])())
    assert copies[0] is copies[1] is not copies[2]
    assert [copy.tolist() for copy in copies[1:]] == [[0.0] * 3, [1.0] * 3]


def test_copies_die_with_their_tensors() -> None:
    x = torch.zeros(3)
    copy = weakref.ref(aside(lambda _, tensor: tensor, [x])())
    assert copy() is not None
    del x
    assert copy() is None


def test_nothing_is_computed_before_the_result_is_asked_for() -> None:
    threads: list[Any] = []
    result = aside(lambda *_: threads.append(threading.current_thread()), [torch.zeros(1)])
    assert threads == []
    thread = threading.Thread(target=result)
    thread.start()
    thread.join()
    assert threads == [thread]


def test_no_gradients() -> None:
    x = torch.ones(3, requires_grad=True)
    assert not aside(lambda _, tensor: (tensor * 2).requires_grad, [x])()
    with fork_rng():
        assert not (x * 2).requires_grad
    assert (x * 2).requires_grad


def test_inference_tensors() -> None:
    with torch.inference_mode():
        x = torch.ones(3)
        result = aside(lambda _, tensor: (tensor * 2).tolist(), [x])
    assert result() == [2.0] * 3


def test_other_devices_are_worked_on_at_once() -> None:
    shapes: list[Any] = []
    result = aside(lambda _, x: shapes.append(tuple(x.shape)), [torch.zeros(2, device="meta")])
    assert shapes == [(2,)]
    result()
    assert shapes == [(2,)]


def test_models_are_owned() -> None:
    from diffusers import AutoencoderTiny

    assert backend.owns(AutoencoderTiny.__new__(AutoencoderTiny))
    assert not backend.owns(torch.nn.Linear(1, 1))


@cuda
def test_the_device_is_never_waited_for() -> None:
    """No synchronisation in the thread of the loop, nor any that torch would report."""
    form = LatentFormat("made up", 4, 8, ((0.3,) * 3,) * 4, (0.0,) * 3, (-1.0, 1.0), "made up")
    colours = ColourMap(form)
    latents = torch.randn(1, 4, 64, 64, device="cuda")
    part = colours.part(latents.shape)
    expected = colours.rgb(latents, backend.ops).pixels
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        torch.cuda._sleep(200_000_000)  # the loop's stream is busy
        busy = torch.cuda.Event()
        busy.record()
        result = aside(lambda ops, x: colours.planes(x, part, ops), [latents])
        latents += 5
        assert not busy.query()
        planes = result()
        assert busy.query()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert (colours.arrange(planes, part).pixels == expected).all()
