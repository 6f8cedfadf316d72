"""Run the suite on the backend named to ``python -m unicb.testing``; pytest collects this
module."""

from __future__ import annotations

import os

from unicb.testing import BackendSuite, load_harness

VARIABLE = "UNICB_TESTING_BACKEND"


class TestBackend(BackendSuite):
    harness = load_harness(os.environ[VARIABLE])
