"""Find the innermost call of a pipeline in the context that is running."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class Scope:
    """A scope is the extent of one call that unicb makes of a pipeline, from its beginning to its
    end.

    Attributes:
        is_open: True until the call has ended.
    """

    __slots__ = ("is_open",)

    def __init__(self) -> None:
        self.is_open = True

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Assign the calls in the block to this scope, except those in scopes inside it."""
        token = _innermost.set(self)
        try:
            yield
        finally:
            _innermost.reset(token)


_innermost: ContextVar[Scope | None] = ContextVar("unicb_innermost_scope", default=None)


def innermost() -> Scope | None:
    """Return the innermost scope of the current context; None outside of all scopes."""
    return _innermost.get()
