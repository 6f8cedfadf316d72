"""Refuse objects that wrap a pipeline and are none."""

from __future__ import annotations

from typing import Any

from unicb.backend import backend_for
from unicb.errors import BackendNotFoundError, UnsupportedPipelineError

#: Names of attributes in which wrappers keep the wrapped object, such as torch's and xDiT's
#: ``module``.
_NAMES = ("module", "pipeline", "pipe", "_pipeline", "_pipe", "_orig_mod", "base_pipeline")


def check_not_wrapped(wrapper: Any, error: BackendNotFoundError) -> None:
    """Raise UnsupportedPipelineError if an object that no backend knows wraps a pipeline."""
    for name in _NAMES:
        inner = vars(wrapper).get(name) if hasattr(wrapper, "__dict__") else None
        if inner is None or inner is wrapper:
            continue
        try:
            backend_for(inner)
        except BackendNotFoundError:
            continue
        kind, of = type(wrapper), type(inner).__name__
        raise UnsupportedPipelineError(
            f"a {kind.__qualname__} (from {kind.__module__}) is no pipeline, but wraps one: its "
            f"`{name}` is a {of}. What its call does, on which ranks its loop calls a callback, "
            "and with which rows, cannot be seen from outside. Where its call is that of the "
            f"pipeline inside, bind that: bind(wrapper.{name}, ...); else it cannot be bound"
        ) from error
