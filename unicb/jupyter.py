"""The Jupyter kernel that this process is, if it is one. Nothing is imported for asking."""

from __future__ import annotations

import sys
from typing import Any


def shell() -> Any | None:
    """Return IPython's shell in a Jupyter kernel; None elsewhere, in a terminal's IPython too."""
    get: Any = getattr(sys.modules.get("IPython"), "get_ipython", None)  # a kernel has imported it
    found = None if get is None else get()
    return found if getattr(found, "kernel", None) is not None else None


def cell() -> int | None:
    """Return a number of the cell that is executed, which no other cell of this kernel has; None
    outside of Jupyter."""
    found = shell()
    return None if found is None else getattr(found, "execution_count", None)
