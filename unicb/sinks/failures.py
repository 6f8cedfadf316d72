"""Word warnings about errors in the user's code."""

from __future__ import annotations

import traceback

from unicb.sinks.sink import Sink, function_of


def failure(error: BaseException) -> str:
    """Return the error and the last line of its traceback as text, which keeps no pictures
    alive."""
    text = f"{type(error).__name__}: {error}"
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return text
    last = frames[-1]
    return f"{text} ({last.filename}, line {last.lineno}, in {last.name}: {last.line})"


def sink_name(sink: Sink) -> str:
    """Return a sink's name: that of its class, or of the function that it wraps."""
    function = function_of(sink)
    if function is None:
        return type(sink).__name__
    return str(getattr(function, "__qualname__", None) or type(function).__name__)
