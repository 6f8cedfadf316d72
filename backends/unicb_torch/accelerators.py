"""Use what torch's devices can do besides computing, whatever they are called.

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
    """An event is a moment in what a device does."""

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
    """Return ``torch.cuda`` for "cuda", and so on; None where torch has no such module."""
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
    """Return an event that is reached once the device has done what its current stream has up to
    now.

    Args:
        blocking: a thread that waits for it sleeps, where the device offers that.
    """
    try:
        event = streams.Event(blocking=True) if blocking else streams.Event()
    except TypeError:
        event = streams.Event()
    event.record(streams.current_stream(device))
    return cast(Event, event)


def pinned_memory(like: torch.Tensor) -> torch.Tensor | None:
    """Return an empty host tensor of this shape and dtype, in memory that devices read and write by
    themselves; None where there is no such memory."""
    try:
        made = torch.empty(like.shape, dtype=like.dtype, pin_memory=True)
    except (NotImplementedError, RuntimeError):
        return None
    # What is not pinned must not pass for it: it is copied to while the host goes on.
    return made if made.is_pinned() else None


@contextmanager
def random_numbers_kept() -> Iterator[None]:
    """Have CPU and accelerator go on, after the block, with the random numbers from before it."""
    module = _module_of(_kind())
    states = None if module is None else _random_states(module)
    with torch.random.fork_rng(()):
        try:
            yield
        finally:
            if states is not None:
                _set_random_states(module, states)


def _kind() -> str:
    """Return the kind of accelerator that this torch has and finds."""
    if not hasattr(torch, "accelerator"):  # before torch 2.6
        return "cuda" if torch.cuda.is_available() else ""
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return "" if found is None else found.type


def _random_states(module: Any) -> Any:
    """Return the states of all devices, or of the only one where the module counts none, as for
    mps."""
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
