"""Work on a run's tensors, and leave the run alone."""

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

    Two threads that call MindSpore's operations at a time may crash the process (on its CPU, two
    generations did), so these are called at once. But where the tensors are on the host anyway,
    numpy works on copies of them, and in whichever thread; float32 for the halves. An operation
    of MindSpore's costs a millisecond there.
    """
    if mindspore.get_context("device_target") != "CPU":
        return at_once(work, ops, tensors)
    hosts = {id(tensor): ops.to_numpy(tensor) for tensor in tensors}
    wide = {
        key: host.astype(np.float32) if host.dtype == np.float16 else host
        for key, host in hosts.items()
    }
    return partial(work, HostOps(), *(wide[id(tensor)] for tensor in tensors))
