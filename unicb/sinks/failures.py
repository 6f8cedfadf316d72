"""Words for a warning of something of the user's that has failed."""

from __future__ import annotations

import traceback

from unicb.sinks.sink import Sink, function_of


def failure(error: BaseException) -> str:
    """Return the error and the last line of its traceback: as text, which keeps no pictures."""
    text = f"{type(error).__name__}: {error}"
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return text
    last = frames[-1]
    return f"{text} ({last.filename}, line {last.lineno}, in {last.name}: {last.line})"


def sink_name(sink: Sink) -> str:
    """Return what a sink is called: its class, or the function that it stands for."""
    function = function_of(sink)
    if function is None:
        return type(sink).__name__
    return str(getattr(function, "__qualname__", None) or type(function).__name__)
