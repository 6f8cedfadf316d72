"""Run the suite on the backend that ``python -m unicb.testing`` was asked for; pytest collects
this."""

from __future__ import annotations

import os

from unicb.testing import BackendSuite, load_harness

VARIABLE = "UNICB_TESTING_BACKEND"


class TestBackend(BackendSuite):
    harness = load_harness(os.environ[VARIABLE])
