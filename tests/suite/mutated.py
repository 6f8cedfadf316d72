"""The suite on the reference and on every mutant. Not collected by itself: see ``record.py``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from mutants import MUTANTS, REFERENCES
from mutation import MATRIX, Mutant, checks_of

from unicb.testing import BackendSuite
from unicb.testing._arithmetic import ArithmeticChecks
from unicb.testing._callbacks import CallbacksChecks
from unicb.testing._ops import OpsChecks
from unicb.testing._parts import PartsChecks
from unicb.testing._services import ServicesChecks
from unicb.testing._tensors import TensorsChecks

_CHECKS = {*checks_of(BackendSuite)}
_LONG_GROUPS = (
    OpsChecks,
    PartsChecks,
    ArithmeticChecks,
    ServicesChecks,
    TensorsChecks,
    CallbacksChecks,
)
_LONG = {check for group in _LONG_GROUPS for check in checks_of(group)}


def _left_out(mutant: Mutant) -> set[str]:
    """Names of the checks that are not run on it."""
    if mutant in REFERENCES:
        return set()
    # In the matrix, too, those are left out that draw many examples, or make many runs.
    others = _LONG if MATRIX in os.environ else _CHECKS
    return others - {*mutant.kills}


def _suite_on(mutant: Mutant) -> type:
    """The suite, with the fault planted around each check."""

    @pytest.fixture(autouse=True)
    def planted(self: Any) -> Iterator[None]:
        # Fresh pipelines: what one check has damaged must neither hide nor fake another's failure.
        self._pipelines.clear()
        with mutant.planted():
            yield

    members = {
        "mutant": mutant,
        "harness": mutant.harness(),
        "planted": planted,
        "_pipelines": {},
        "left_out": _left_out(mutant),
    }
    return type("TestMutant", (BackendSuite,), members)


for _number, _mutant in enumerate((*REFERENCES, *MUTANTS)):
    globals()[f"TestMutant{_number}"] = _suite_on(_mutant)
