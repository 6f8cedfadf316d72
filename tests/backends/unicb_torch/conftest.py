"""What the tests on torch alone begin with."""

from __future__ import annotations

import sys

import pytest


@pytest.fixture(autouse=True, scope="module")
def _no_graphs_of_other_files() -> None:
    """Each piece of code is compiled so many times in a process, and runs as it is from then on."""
    if "torch._dynamo" in sys.modules:
        sys.modules["torch._dynamo"].reset()
