"""Run a block without changing the framework's random numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import mindspore
import numpy as np


@contextmanager
def fork_rng() -> Iterator[None]:
    """See :meth:`unicb.Backend.fork_rng`.

    MindSpore records gradients only inside a function that is being differentiated. mindone draws
    from numpy's global generator; ``mint`` draws from MindSpore's own. The older operations, such
    as ``ops.standard_normal``, count their calls in a state that cannot be put back.
    """
    state, numpy_state = mindspore.get_rng_state(), np.random.get_state()
    try:
        yield
    finally:
        mindspore.set_rng_state(state)
        np.random.set_state(numpy_state)
