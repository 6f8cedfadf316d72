"""The suite on the reference and on every mutant. Not collected by itself: see ``record.py``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from mutants import MUTANTS, REFERENCES
from mutation import Mutant, checks_of

from unicb.testing import BackendSuite
from unicb.testing._callbacks import CallbacksChecks
from unicb.testing._ops import OpsChecks
from unicb.testing._tensors import TensorsChecks

_LONG = {*checks_of(OpsChecks), *checks_of(TensorsChecks), *checks_of(CallbacksChecks)}


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
        # These draw many examples, or make many runs: of them, only those run that are expected
        # to fail.
        "left_out": set() if mutant in REFERENCES else _LONG - {*mutant.kills},
    }
    return type("TestMutant", (BackendSuite,), members)


for _number, _mutant in enumerate((*REFERENCES, *MUTANTS)):
    globals()[f"TestMutant{_number}"] = _suite_on(_mutant)
