"""A toy pipeline of the reference backend, for tests of unicb itself."""

from __future__ import annotations

import pytest

from unicb_numpy.pipelines import ToyPipeline

try:
    from hypothesis import settings
except ImportError:  # the tests of the web page do without
    pass
else:
    # An example may take its time on a busy machine; and every run has the same examples.
    settings.register_profile("unicb", deadline=None, derandomize=True, database=None)
    settings.load_profile("unicb")


@pytest.fixture
def pipe() -> ToyPipeline:
    return ToyPipeline()
