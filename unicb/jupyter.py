"""Find out whether this process is a Jupyter kernel, without importing anything."""

from __future__ import annotations

import sys
from typing import Any


def shell() -> Any | None:
    """Return IPython's shell in a Jupyter kernel; None elsewhere, also in a terminal's IPython."""
    get: Any = getattr(sys.modules.get("IPython"), "get_ipython", None)  # a kernel has imported it
    found = None if get is None else get()
    return found if getattr(found, "kernel", None) is not None else None


def cell() -> int | None:
    """Return a number that identifies the executing cell in this kernel; None outside of
    Jupyter."""
    found = shell()
    return None if found is None else getattr(found, "execution_count", None)
