"""Work on a run's tensors without disturbing the run."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import Any, NamedTuple, cast

import torch

from unicb.backend import T, at_once
from unicb.ops import Tensor, TensorOps
from unicb_torch.accelerators import Event, Streams, random_numbers_kept, record, streams_of


def aside(work: Callable[..., T], ops: TensorOps, tensors: Sequence[Tensor]) -> Callable[[], T]:
    """See :meth:`unicb.Backend.aside`.

    On a device with streams (CUDA, ROCm, XPU, NPU), ``work`` runs on a stream of its own, which
    waits for the work queued so far on the loop's stream; the loop's stream does not wait. On a
    CPU, ``work`` runs in the thread that asks for the result; elsewhere (such as mps) at once.
    """
    if all(tensor.is_cpu for tensor in tensors):
        return partial(_without_gradients, work, ops, [_copy(tensor) for tensor in tensors])
    # What is on the host is of every device.
    devices = {tensor.device for tensor in tensors if not tensor.is_cpu}
    device = devices.pop()
    streams = streams_of(device)
    if devices or streams is None:
        return at_once(work, ops, tensors)
    kept = [_copy(tensor) for tensor in tensors]
    copied = record(streams, device)
    return partial(_on_stream, streams, device, copied, work, ops, kept)


class _Copied(NamedTuple):
    tensor: weakref.ref[torch.Tensor]
    version: int
    copy: torch.Tensor


#: Copies that are still in use, by the ids of their originals: the latents of one step are needed
#: again in the next.
_copies: dict[int, _Copied] = {}


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    """Return a copy of a tensor, because a loop may write into its latents; the copy made before,
    if the tensor has not changed since."""
    if tensor.is_inference():  # torch does not count writes to it
        return tensor.clone()
    key, version = id(tensor), tensor._version
    before = _copies.get(key)
    if before is not None and before.version == version and before.tensor() is tensor:
        return before.copy
    copy = tensor.detach().clone()
    dies = weakref.ref(tensor, lambda _: _copies.pop(key, None))
    _copies[key] = _Copied(dies, version, copy)
    return copy


def _without_gradients(work: Callable[..., T], ops: TensorOps, tensors: Sequence[Tensor]) -> T:
    with torch.no_grad():
        return work(ops, *tensors)


def _on_stream(
    streams: Streams,
    device: torch.device,
    copied: Event,
    work: Callable[..., T],
    ops: TensorOps,
    tensors: Sequence[Tensor],
) -> T:
    with torch.no_grad(), streams.stream(_stream(device)):
        streams.current_stream(device).wait_event(copied)
        return work(ops, *tensors)


@cache
def _stream(device: torch.device) -> Any:
    return cast(Streams, streams_of(device)).Stream(device)


@contextmanager
def fork_rng() -> Iterator[None]:
    """See :meth:`unicb.Backend.fork_rng`."""
    with torch.no_grad(), random_numbers_kept():
        yield
