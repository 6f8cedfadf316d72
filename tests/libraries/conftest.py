"""Tests beside real libraries: ``nox -s libraries`` installs them."""

from __future__ import annotations

import sys
from pathlib import Path

BACKENDS = Path(__file__).parents[1] / "backends"
#: Their helpers: how a cut is checked on PyTorch.
sys.path[:0] = [str(BACKENDS), str(BACKENDS / "unicb_torch")]
