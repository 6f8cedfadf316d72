"""Notice that several processes are about to write the same file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unicb import Run


def written_by_other_rank(run: Run, path: str) -> str | None:
    """Claim the path of a file, or of a template, for this process. Returns None; or a message for
    the user, if another process of the same start writes there already.

    Args:
        run: the run that is to be written.
        path: the path with its fields; a path with ``{rank}`` differs between processes.
    """
    backend = run.target.backend
    own, size = backend.rank()
    if size < 2 or "{rank" in path:
        return None
    other = backend.claim(os.path.abspath(path))
    if other == own:
        return None
    return (
        f"{path!r} is what rank {other} writes, and this is rank {own} with a run of its own; put "
        "{rank} into the template, or bind this callback on one rank"
    )
