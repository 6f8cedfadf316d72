"""Set attributes of a pipeline for a run, and restore their former values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Ours(float):
    """``Ours`` is a number that a run has set on a pipeline; its identity tells it from another
    run's."""


def put_back(pipeline: Any, name: str, before: Any, ours: Mapping[str, Ours]) -> None:
    """Restore an attribute's former value, unless another run has set it since.

    The failure of a run may be noticed late, in the middle of another run.
    """
    if getattr(pipeline, name, None) is ours[name]:
        setattr(pipeline, name, before)
