"""What the tests on torch alone begin with."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="module")
def _no_graphs_of_other_files() -> None:
    """Each piece of code is compiled so many times in a process, and runs as it is from then on."""
    if "torch._dynamo" in sys.modules:
        sys.modules["torch._dynamo"].reset()


@pytest.fixture
def fresh_dynamo() -> Iterator[None]:
    """Nothing is compiled before the test, nor counted, and nothing stays so after it."""
    import torch  # not above: the process that hands out tests needs none
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()
