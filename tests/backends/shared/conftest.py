"""What the tests in here need before they start, whichever ran before in the same process."""

from __future__ import annotations

import here
import pytest


@pytest.fixture(autouse=True, scope="module")
def _ready() -> None:
    here.make_ready()
