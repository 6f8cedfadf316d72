"""Two processes that would use the same folder take turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # on Windows: there, nobody is kept from starting two at once
    fcntl = None  # type: ignore[assignment]


@contextmanager
def one_at_a_time(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold a folder for the ``with`` block; wait first, and say so, while another process holds it.

    The operating system lets go of it when its process ends, however that happens.
    """
    if fcntl is None:
        yield
        return
    with (folder / "in-use.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another process, which uses {folder}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
