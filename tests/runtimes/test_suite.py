"""The conformance suite on a runtime's pipelines."""

from __future__ import annotations

import runtime

from unicb.testing import BackendSuite


class TestRuntime(BackendSuite):
    harness = runtime.harness
