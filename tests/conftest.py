"""A toy pipeline of the reference backend, for tests of unicb itself."""

from __future__ import annotations

import pytest

from unicb_numpy.pipelines import ToyPipeline


@pytest.fixture
def pipe() -> ToyPipeline:
    return ToyPipeline()
