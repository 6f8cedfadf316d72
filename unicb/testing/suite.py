"""Combine all groups of checks into one suite, for one harness."""

from __future__ import annotations

from inspect import getattr_static as _find
from typing import Any

import pytest

from unicb.testing._arithmetic import ArithmeticChecks
from unicb.testing._binding import BindingChecks
from unicb.testing._callbacks import CallbacksChecks
from unicb.testing._cleanup import CleanupChecks
from unicb.testing._guidance import BATCHES, GuidanceChecks
from unicb.testing._interrupt import InterruptChecks
from unicb.testing._loops import LoopChecks
from unicb.testing._modular import ModularChecks
from unicb.testing._ops import OpsChecks
from unicb.testing._ownership import OwnershipChecks
from unicb.testing._parts import PartsChecks
from unicb.testing._preview import PreviewChecks
from unicb.testing._registry import RegistryChecks
from unicb.testing._report import ReportChecks
from unicb.testing._schedules import ScheduleChecks
from unicb.testing._services import ServicesChecks
from unicb.testing._tensors import TensorsChecks
from unicb.testing.harness import Harness, check_harness, kinds_of


class BackendSuite(
    OpsChecks,
    PartsChecks,
    ArithmeticChecks,
    ServicesChecks,
    TensorsChecks,
    RegistryChecks,
    BindingChecks,
    CleanupChecks,
    OwnershipChecks,
    GuidanceChecks,
    ScheduleChecks,
    InterruptChecks,
    PreviewChecks,
    CallbacksChecks,
    LoopChecks,
    ModularChecks,
    ReportChecks,
):
    """The suite has every check that a backend has to pass. Derive, set ``harness``, and let pytest
    collect it:

    >>> class TestMine(BackendSuite):  # doctest: +SKIP
    ...     harness = MyHarness()

    You may add checks under other names; the suite's checks cannot be overridden.

    Raises:
        TypeError: on derivation, without a harness, with a check overridden, or with an expected
            failure that names no check or has no reason.
    """

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        checks = set(check_names())
        ours = sorted({*checks, "pytest_generate_tests", "_expect_failure"})
        if overridden := [
            name for name in ours if _find(cls, name) is not _find(BackendSuite, name)
        ]:
            raise TypeError(
                f"{cls.__name__} overrides {', '.join(overridden)}: checks of the suite cannot be "
                "overridden. One that must fail belongs into the harness's expected_failures, "
                "with a reason"
            )
        check_harness(harness := getattr(cls, "harness", None))
        assert isinstance(harness, Harness)
        for test_id, reason in harness.expected_failures.items():
            if test_id.partition("[")[0] not in checks:
                raise TypeError(f"expected failure {test_id!r} names no check of the suite")
            if not reason.strip():
                raise TypeError(f"expected failure {test_id!r} has no reason")

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run a check for each kind of pipeline and each dtype that the harness has."""
        if "batch" in metafunc.fixturenames:
            metafunc.parametrize(("kind", "batch"), batches_of(self.harness))
        elif "kind" in metafunc.fixturenames:
            sampled = hasattr(metafunc.function, "on_sampled_kinds")
            metafunc.parametrize("kind", kinds_of(self.harness, sampled=sampled))
        if "dtype" in metafunc.fixturenames:
            metafunc.parametrize("dtype", self.harness.dtypes)

    @pytest.fixture(autouse=True)
    def _expect_failure(self, request: pytest.FixtureRequest) -> None:
        """Mark the checks that the harness expects to fail, strictly."""
        expected = self.harness.expected_failures
        if not expected:
            return
        function = request.node.name.partition("[")[0]
        siblings = {
            item.name
            for item in request.session.items
            if item.parent is request.node.parent and item.name.partition("[")[0] == function
        }
        unknown = [
            test_id
            for test_id in expected
            if test_id.partition("[")[0] == function and test_id not in siblings
        ]
        # A check that is selected by its id does not know the other checks.
        if unknown and len(siblings) > 1:
            raise pytest.UsageError(f"expected failures that do not exist: {', '.join(unknown)}")
        if reason := expected.get(request.node.name):
            request.applymarker(pytest.mark.xfail(reason=reason, strict=True))


def batches_of(harness: Harness) -> list[tuple[str, str]]:
    """Pair each kind with the batches that it is called with: sampled kinds with all batches, other
    kinds with the last one, which has several prompts and images."""
    sampled = kinds_of(harness, sampled=True)
    return [
        (kind, batch)
        for kind in harness.kinds
        for batch in BATCHES
        if kind in sampled or batch == BATCHES[-1]
    ]


def check_names() -> tuple[str, ...]:
    """Return the names of all checks, in the order of their groups."""
    return tuple(name for group in GROUPS for name in vars(group) if name.startswith("test_"))


#: The groups of checks; the first line of each group's module describes it.
GROUPS: tuple[type, ...] = BackendSuite.__bases__
