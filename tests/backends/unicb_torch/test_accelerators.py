"""Devices with streams other than CUDA's: a made-up one, which notes what it is told.

Its tensors are a CPU's that say they are elsewhere. Nothing is computed later than it is asked for:
what is tested is the order in which the device is told.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from unicb_torch import accelerators, backend
from unicb_torch.aside import _stream, fork_rng

DEVICE = torch.device("xpu", 0)


class There(torch.Tensor):
    """A tensor on the device."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return DEVICE

    @property
    def is_cpu(self) -> bool:  # type: ignore[override]
        return False

    def cpu(self) -> torch.Tensor:  # type: ignore[override]
        DID.append("waited for everything")
        return self.as_subclass(torch.Tensor)

    def to(self, *args: Any, **kwargs: Any) -> Any:
        return self.as_subclass(torch.Tensor).to(*args, **kwargs).as_subclass(There)


DID: list[str] = []


class Stream:
    def __init__(self, device: Any = "", name: str = "its own") -> None:
        self.name = name

    def wait_event(self, event: Event) -> None:
        DID.append(f"{self.name} waits for event of {event.of}")


class Event:
    of = "nothing"

    def record(self, stream: Stream) -> None:
        self.of = stream.name

    def synchronize(self) -> None:
        DID.append(f"host waits for event of {self.of}")


class Device:
    """What torch has in ``torch.xpu``."""

    Stream, Event = Stream, Event

    def __init__(self) -> None:
        self.current = Stream(name="the loop's")
        self.states = [torch.tensor([1]), torch.tensor([2])]

    def current_stream(self, device: torch.device) -> Stream:
        assert device == DEVICE
        return self.current

    @contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        before, self.current = self.current, stream
        yield
        self.current = before

    def get_rng_state_all(self) -> list[torch.Tensor]:
        return [state.clone() for state in self.states]

    def set_rng_state_all(self, states: list[torch.Tensor]) -> None:
        self.states = states


class Blocking(Event):
    """Some let a thread sleep that waits."""

    def __init__(self, blocking: bool = False) -> None:
        if blocking:
            DID.append("an event to sleep for")


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    DID.clear()
    made = Device()
    found = {"xpu": made}
    monkeypatch.setattr(torch, "get_device_module", lambda kind: found[kind])
    monkeypatch.setattr(torch, "accelerator", None, raising=False)
    _stream.cache_clear()
    accelerators._module_of.cache_clear()
    yield made
    _stream.cache_clear()
    accelerators._module_of.cache_clear()


@pytest.fixture
def has_pinned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    empty = torch.empty

    def pinned(*args: Any, pin_memory: bool = False, **kwargs: Any) -> Any:
        made = empty(*args, **kwargs)
        if pin_memory:
            made.is_pinned = lambda: True  # type: ignore[method-assign]
        return made

    monkeypatch.setattr(torch, "empty", pinned)


def there(*values: float) -> torch.Tensor:
    return torch.tensor(values).as_subclass(There)


def test_work_aside_waits_for_the_loop_and_the_loop_for_nothing(device: Device) -> None:
    x = there(1.0, 2.0)
    result = backend.aside(lambda ops, x: (device.current.name, x.tolist()), [x])
    assert DID == []
    x += 5
    assert result() == ("its own", [1.0, 2.0])
    assert DID == ["its own waits for event of the loop's"]
    assert device.current.name == "the loop's"


def test_tensors_on_the_host_go_with_the_others(device: Device) -> None:
    result = backend.aside(
        lambda ops, x, y: (x + y.as_subclass(torch.Tensor)).tolist(), [torch.ones(1), there(2.0)]
    )
    assert result() == [3.0]
    assert DID == ["its own waits for event of the loop's"]


def test_one_stream_for_all_work(device: Device) -> None:
    streams = [backend.aside(lambda ops, x: device.current, [there(0.0)])() for _ in range(2)]
    assert streams[0] is streams[1]


@pytest.mark.usefixtures("has_pinned_memory")
@pytest.mark.parametrize("event", [Event, Blocking])
def test_to_the_host_past_what_other_threads_queue(device: Device, event: Any) -> None:
    device.Event = event
    assert backend.ops.to_numpy(there(1.0, 2.0)).tolist() == [1.0, 2.0]
    sleeps = ["an event to sleep for"] * (event is Blocking)
    assert [*sleeps, "host waits for event of the loop's"] == DID


@pytest.mark.usefixtures("has_pinned_memory")
def test_pixels_to_the_host(device: Device) -> None:
    assert backend.ops.to_uint8(there(-1.0, 2.4, 300.0, float("nan"))).tolist() == [0, 2, 255, 0]
    assert DID == ["host waits for event of the loop's"]


def test_without_pinned_memory_the_host_waits_for_everything(device: Device) -> None:
    assert backend.ops.to_numpy(there(1.0)).tolist() == [1.0]
    assert DID == ["waited for everything"]


@pytest.mark.parametrize("answer", [False, RuntimeError("none"), NotImplementedError("none")])
def test_what_is_not_pinned_does_not_pass_for_it(
    answer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = torch.empty

    def unpinned(*args: Any, pin_memory: bool = False, **kwargs: Any) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return empty(*args, **kwargs)

    monkeypatch.setattr(torch, "empty", unpinned)
    assert accelerators.pinned_memory(torch.zeros(2)) is None


def test_a_device_without_streams(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """As mps: it has events, and nothing to wait with."""
    monkeypatch.setattr(torch, "get_device_module", lambda kind: SimpleNamespace(Event=Event))
    accelerators._module_of.cache_clear()
    seen: list[Any] = []
    result = backend.aside(lambda ops, x: seen.append(x.tolist()), [there(1.0)])
    assert seen == [[1.0]]
    result()
    assert seen == [[1.0]]
    assert backend.ops.to_numpy(there(2.0)).tolist() == [2.0]


def test_a_device_that_torch_has_no_module_for() -> None:
    assert accelerators.streams_of(torch.device("meta")) is None
    assert accelerators.streams_of(torch.device("cpu")) is None


def accelerator(kind: str | None) -> Any:
    return SimpleNamespace(
        is_available=lambda: kind is not None,
        current_accelerator=lambda: kind and torch.device(kind),
    )


def test_random_numbers_of_every_device(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "accelerator", accelerator("xpu"), raising=False)
    with fork_rng():
        device.states[1] += 5
    assert [int(state) for state in device.states] == [1, 2]


def test_random_numbers_of_a_device_that_counts_none(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = [1]
    module = SimpleNamespace(
        get_rng_state=lambda: states[0], set_rng_state=lambda state: states.append(state)
    )
    monkeypatch.setattr(torch, "accelerator", accelerator("mps"), raising=False)
    monkeypatch.setattr(torch, "get_device_module", lambda kind: {"mps": module}[kind])
    with pytest.raises(KeyError, match="decoder"), fork_rng():
        raise KeyError("decoder")
    assert states == [1, 1]


class Older:
    """torch before 2.6, as a module sees it."""

    def __getattr__(self, name: str) -> Any:
        if name == "accelerator":
            raise AttributeError(name)
        return getattr(torch, name)


@pytest.mark.parametrize("kind", [None, "absent"])
def test_random_numbers_without_an_accelerator(
    kind: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    if kind is None:
        monkeypatch.setattr(torch, "accelerator", accelerator(None), raising=False)
    else:
        monkeypatch.setattr(accelerators, "torch", Older())
    with fork_rng():
        torch.rand(5)
    assert np.array_equal(torch.rand(2), expected)
