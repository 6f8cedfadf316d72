"""Set attributes of a pipeline for a run, and give them their former values back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Ours(float):
    """``Ours`` is a number that a run has set on a pipeline, known by its identity from those of
    other runs."""


def put_back(pipeline: Any, name: str, before: Any, ours: Mapping[str, Ours]) -> None:
    """Give an attribute its former value, unless another run has set it since.

    A run that has failed may be noticed late, in the middle of another.
    """
    if getattr(pipeline, name, None) is ours[name]:
        setattr(pipeline, name, before)
