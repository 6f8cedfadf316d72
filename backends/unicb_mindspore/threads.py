"""Set how many threads MindSpore computes with on a CPU."""

from __future__ import annotations

import os

import mindspore

#: MindSpore takes it once in a process. No cache: those are emptied.
_taken = False


def use_few_threads() -> None:
    """Have as many as OMP_NUM_THREADS says, or one: on tiny tensors, threads do nothing but wait
    for each other. Only the first call counts."""
    global _taken
    if _taken or mindspore.get_context("device_target") != "CPU":
        return
    _taken = True
    threads = int(os.environ.get("OMP_NUM_THREADS", "1").partition(",")[0])
    mindspore.device_context.cpu.op_tuning.threads_num(threads)
