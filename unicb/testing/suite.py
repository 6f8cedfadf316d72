"""The suite: all groups of checks, for one harness."""

from __future__ import annotations

import pytest

from unicb.testing._binding import BindingChecks
from unicb.testing._guidance import GuidanceChecks
from unicb.testing._interrupt import InterruptChecks
from unicb.testing._ops import OpsChecks
from unicb.testing._preview import PreviewChecks


class BackendSuite(OpsChecks, BindingChecks, GuidanceChecks, InterruptChecks, PreviewChecks):
    """Every check that a backend has to pass. Derive, set ``harness``, and let pytest collect it:

    >>> class TestMine(BackendSuite):  # doctest: +SKIP
    ...     harness = MyHarness()
    """

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run a check for each kind of pipeline and each dtype that the harness has."""
        if "kind" in metafunc.fixturenames:
            metafunc.parametrize("kind", self.harness.kinds)
        if "dtype" in metafunc.fixturenames:
            metafunc.parametrize("dtype", self.harness.dtypes)
