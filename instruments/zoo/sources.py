"""Tell how unicb sees the ends of a class's steps: by the callback that its loop calls, or by its
scheduler."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

from unicb.errors import UnsupportedPipelineError
from unicb.pipelines.scheduled import scheduled_loop
from zoo.framework import Framework
from zoo.loops import calls_back

#: Sources by what rows have: of classes that their library still has, and of those it will drop.
CALLBACK, SCHEDULER, DEPRECATED = "callback", "scheduler", "scheduler, deprecated"
_STEPS = re.compile(r"scheduler\w*\.(step|batch_step)\w*\(")


def scheduled_classes(fx: Framework) -> dict[str, type]:
    """Return all pipeline classes of the framework whose own loop calls no callback, by name."""
    return {kind.__name__: kind for kind in _pipelines(fx) if _steps_alone(kind)}


def source_of(kind: type | None) -> str:
    """Return the source of a class; of one that is not to be found, for want of what it needs, it
    is a callback, as of most."""
    if kind is None or not _steps_alone(kind):
        return CALLBACK
    return DEPRECATED if ".deprecated." in kind.__module__ else SCHEDULER


def why_refused(kind: type) -> str:
    """Say why the steps of a class that calls no callback cannot be seen; empty where they can."""
    try:
        scheduled_loop(kind)
    except UnsupportedPipelineError as refusal:
        return str(refusal)
    return ""


def _pipelines(fx: Framework) -> Iterator[type]:
    for name in sorted(dir(fx.library)):
        try:
            kind = getattr(fx.library, name)
        except Exception:  # some of mindone's classes import torch
            continue
        if inspect.isclass(kind) and issubclass(kind, fx.library.DiffusionPipeline):
            yield kind


def _steps_alone(kind: Any) -> bool:
    """Return whether the class's own call takes no callback, and steps a scheduler."""
    if "__call__" not in vars(kind) or calls_back(kind):
        return False
    try:
        return _STEPS.search(inspect.getsource(kind.__call__)) is not None
    except (OSError, TypeError):
        return False
