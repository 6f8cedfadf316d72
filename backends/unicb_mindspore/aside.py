"""Work on a run's tensors without disturbing the run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import mindspore
import numpy as np

from unicb.backend import T, at_once
from unicb.host import HostOps
from unicb.ops import Tensor, TensorOps


def aside(work: Callable[..., T], ops: TensorOps, tensors: Sequence[Tensor]) -> Callable[[], T]:
    """See :meth:`unicb.Backend.aside`.

    Two threads that call MindSpore's operations at the same time may crash the process (as two
    generations on its CPU did), so ``work`` is called at once. But if the tensors are on the host
    anyway, it is called later, in any thread, with numpy copies of them: float32 for half
    precision. There, each operation of MindSpore itself would cost a millisecond.
    """
    if mindspore.get_context("device_target") != "CPU":
        return at_once(work, ops, tensors)
    hosts = {id(tensor): ops.to_numpy(tensor) for tensor in tensors}
    wide = {
        key: host.astype(np.float32) if host.dtype == np.float16 else host
        for key, host in hosts.items()
    }
    return partial(work, HostOps(), *(wide[id(tensor)] for tensor in tensors))
