"""How many threads MindSpore computes with on a CPU."""

from __future__ import annotations

import os
from functools import cache

import mindspore


@cache
def use_few_threads() -> None:
    """Have as many as OMP_NUM_THREADS says, or one: on tiny tensors, threads do nothing but wait
    for each other. MindSpore takes this once in a process."""
    if mindspore.get_context("device_target") == "CPU":
        threads = int(os.environ.get("OMP_NUM_THREADS", "1").partition(",")[0])
        mindspore.device_context.cpu.op_tuning.threads_num(threads)
