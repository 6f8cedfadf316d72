"""Use streams, events, pinned memory and random states of torch's devices, of whatever kind.

``torch.cuda`` (also on ROCm), ``torch.xpu``, and ``torch.npu`` of torch_npu have streams, events
and random numbers of their own under the same names. ``torch.mps`` has no streams.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from typing import Any, Protocol, cast

import torch


class Event(Protocol):
    """An event is a point in a device's queue of work."""

    def record(self, stream: Any) -> None: ...

    def synchronize(self) -> None: ...


class Streams(Protocol):
    """``Streams`` is the module of a kind of device whose work is queued in streams."""

    Stream: Callable[..., Any]
    Event: Callable[..., Any]

    def current_stream(self, device: torch.device) -> Any: ...

    def stream(self, stream: Any) -> AbstractContextManager[Any]: ...


@cache
def _module_of(kind: str) -> Any:
    """Return ``torch.cuda`` for "cuda", and so on; None if torch has no such module."""
    try:
        return torch.get_device_module(kind)
    except RuntimeError:
        return None


def streams_of(device: torch.device) -> Streams | None:
    """Return the module of a device that has streams and events; None for others, and for CPUs."""
    module = None if device.type == "cpu" else _module_of(device.type)
    names = ("Stream", "Event", "current_stream", "stream")
    return cast(Streams, module) if all(hasattr(module, name) for name in names) else None


def record(streams: Streams, device: torch.device, *, blocking: bool = False) -> Event:
    """Return an event that is reached once the device has done all work queued so far in its
    current stream.

    Args:
        blocking: True: a thread that waits for the event sleeps, if the device supports that.
    """
    try:
        event = streams.Event(blocking=True) if blocking else streams.Event()
    except TypeError:
        event = streams.Event()
    event.record(streams.current_stream(device))
    return cast(Event, event)


def pinned_memory(like: torch.Tensor) -> torch.Tensor | None:
    """Return an uninitialised host tensor with the shape and dtype of ``like``, in pinned memory,
    which devices can read and write directly; None if there is no such memory."""
    try:
        made = torch.empty(like.shape, dtype=like.dtype, pin_memory=True)
    except (NotImplementedError, RuntimeError):
        return None
    # Make sure that it is pinned: the device copies to it while the host goes on.
    return made if made.is_pinned() else None


@contextmanager
def random_numbers_kept() -> Iterator[None]:
    """Restore the random states of CPU and accelerator after the block."""
    module = _module_of(_kind())
    states = None if module is None else _random_states(module)
    with torch.random.fork_rng(()):
        try:
            yield
        finally:
            if states is not None:
                _set_random_states(module, states)


def _kind() -> str:
    """Return the kind of accelerator that torch finds, such as "cuda"; empty if there is none."""
    if not hasattr(torch, "accelerator"):  # before torch 2.6
        return "cuda" if torch.cuda.is_available() else ""
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return "" if found is None else found.type


def _random_states(module: Any) -> Any:
    """Return the random states of all devices; or of the only one, if the module does not count
    devices (mps)."""
    every = getattr(module, "get_rng_state_all", None)
    return module.get_rng_state() if every is None else every()


def _set_random_states(module: Any, states: Any) -> None:
    if hasattr(module, "set_rng_state_all"):
        module.set_rng_state_all(states)
    else:
        module.set_rng_state(states)


_KINDS = ("cuda", "xpu", "npu", "mps")


def devices() -> tuple[str, ...]:
    """Return the devices that torch finds here: ``"cpu"``, ``"cuda:0"``, …"""
    found = ["cpu"]
    for kind in _KINDS:
        module = _module_of(kind)
        if module is not None and module.is_available():
            found += [f"{kind}:{number}" for number in range(module.device_count())]
    return tuple(found)
