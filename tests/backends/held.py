"""Holds on the attention processors of a UNet with an IP-Adapter, by a run that may be calling."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any

import ip_adapter_runs as runs

from unicb.run.holds import hold

_calling: ContextVar[Any] = ContextVar("calling", default=None)


class Run:
    def owns_current_call(self) -> bool:
        return _calling.get() is self

    @contextmanager
    def calls(self) -> Iterator[None]:
        token = _calling.set(self)
        try:
            yield
        finally:
            _calling.reset(token)


@contextmanager
def held(pipe: Any, run: Run, scale: float) -> Iterator[list[Any]]:
    """All scales of the pipeline's adapter, by this run."""
    with ExitStack() as stack:
        holds = [hold(one, "scale", [scale], run) for one in runs.processors(pipe)]
        for one in holds:
            stack.callback(one.release)
        yield holds
