"""Spreads each batch over threads that compute alone.

A network this small gains little from splitting each single operation over cores, and loses all
of it when another program keeps one of the cores busy: every operation then waits for the slower
half. Here the halves meet once in a step.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn

WORKERS = 2
"""Fixed, rather than the number of cores, for it changes the rounding of the sums."""


class Gradients:
    """Fills a network's gradients from the parts of a batch."""

    def __init__(self, network: nn.Module) -> None:
        self._parameters = list(network.parameters())
        self._pool = ThreadPoolExecutor(WORKERS, initializer=torch.set_num_threads, initargs=(1,))

    def fill(self, loss_of: Callable[..., Tensor], *batch: Tensor) -> float:
        """Set each parameter's gradient to that of the mean loss over the batch; return the loss.

        `loss_of` takes a part of each tensor in `batch`, split along the first dimension, and must
        draw no random numbers: the threads would take them in any order.
        """

        def work(*part: Tensor) -> tuple[float, tuple[Tensor, ...]]:
            loss = loss_of(*part)
            return loss.item(), torch.autograd.grad(loss, self._parameters)

        parts = zip(*(tensor.chunk(WORKERS) for tensor in batch), strict=True)
        done = [future.result() for future in [self._pool.submit(work, *part) for part in parts]]
        for parameter, *gradients in zip(
            self._parameters, *(gradients for _, gradients in done), strict=True
        ):
            parameter.grad = sum(gradients[1:], gradients[0]) / WORKERS
        return sum(loss for loss, _ in done) / len(done)
