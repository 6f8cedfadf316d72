"""Bring unicb to MindSpore tensors and mindone.diffusers pipelines. Importing this imports neither.

``enable_cpu()`` makes mindone's pipelines run where there is no Ascend; see ``cpu.py``.
"""

from unicb_mindspore.backend import MindSporeBackend

backend = MindSporeBackend()

__all__ = ["MindSporeBackend", "backend", "disable_cpu", "enable_cpu"]


def enable_cpu() -> tuple[str, ...]:
    """See :func:`unicb_mindspore.cpu.enable_cpu`, which this imports MindSpore to call."""
    from unicb_mindspore import cpu

    return cpu.enable_cpu()


def disable_cpu() -> None:
    """See :func:`unicb_mindspore.cpu.disable_cpu`."""
    from unicb_mindspore import cpu

    cpu.disable_cpu()
