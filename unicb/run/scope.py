"""Tell whose call the running code is in: the innermost call of its context. The innermost call of
the context that is running."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class Scope:
    """A scope is the extent of one call that unicb makes of a pipeline, from its beginning to its
    end.

    Attributes:
        is_open: whether the call has not ended.
    """

    __slots__ = ("is_open",)

    def __init__(self) -> None:
        self.is_open = True

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Make the calls in the block this scope's, but for those of scopes inside it."""
        token = _innermost.set(self)
        try:
            yield
        finally:
            _innermost.reset(token)


_innermost: ContextVar[Scope | None] = ContextVar("unicb_innermost_scope", default=None)


def innermost() -> Scope | None:
    """Return the scope that the calling context is in; None outside of all."""
    return _innermost.get()
