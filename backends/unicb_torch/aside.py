"""Work on a run's tensors that leaves the run alone."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import NamedTuple

import torch

from unicb.backend import T, at_once
from unicb.ops import Tensor, TensorOps


def aside(work: Callable[..., T], ops: TensorOps, tensors: Sequence[Tensor]) -> Callable[[], T]:
    """See :meth:`unicb.Backend.aside`.

    On CUDA, ``work`` runs on a stream of its own, which waits for what the loop's has done up to
    now; the loop's waits for nothing. On a CPU, it runs in the thread that asks for the result.
    Elsewhere (nothing else was tried) at once.
    """
    if all(tensor.is_cpu for tensor in tensors):
        return partial(_without_gradients, work, ops, [_copy(tensor) for tensor in tensors])
    # What is on the host is of every device.
    devices = {tensor.device for tensor in tensors if not tensor.is_cpu}
    device = devices.pop()
    if devices or device.type != "cuda":
        return at_once(work, ops, tensors)
    kept = [_copy(tensor) for tensor in tensors]
    copied = torch.cuda.Event()
    copied.record(torch.cuda.current_stream(device))
    return partial(_on_stream, device, copied, work, ops, kept)


class _Copied(NamedTuple):
    tensor: weakref.ref[torch.Tensor]
    version: int
    copy: torch.Tensor


#: The copies of tensors that are still in use, by their ids: the latents of one step are asked for
#: again in the next.
_copies: dict[int, _Copied] = {}


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    """A copy, since a loop may write into its latents; the one from before if it has not."""
    if tensor.is_inference():  # its writes are not counted
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
    device: torch.device,
    copied: torch.cuda.Event,
    work: Callable[..., T],
    ops: TensorOps,
    tensors: Sequence[Tensor],
) -> T:
    with torch.no_grad(), torch.cuda.stream(_stream(device)):
        torch.cuda.current_stream(device).wait_event(copied)
        return work(ops, *tensors)


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


@contextmanager
def untouched() -> Iterator[None]:
    """See :meth:`unicb.Backend.untouched`."""
    kind, count = "cuda", torch.cuda.device_count()
    # torch 2.6 and later tell of other accelerators, too.
    if hasattr(torch, "accelerator") and torch.accelerator.is_available():
        kind = torch.accelerator.current_accelerator().type
        count = torch.accelerator.device_count()
    with torch.no_grad(), torch.random.fork_rng(range(count), device_type=kind):
        yield
