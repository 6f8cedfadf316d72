"""Every check of the conformance suite fails on some deliberately broken backend or pipeline."""

from __future__ import annotations

from collections import Counter

import pytest
from mutants import MUTANTS, REFERENCES
from mutation import Mutant, checks_of
from outcomes import Outcomes

from unicb.testing import BackendSuite

CHECKS = checks_of(BackendSuite)


def _named(mutants: tuple[Mutant, ...]) -> list[object]:
    return [pytest.param(mutant, id=mutant.name) for mutant in mutants]


def test_mutants_have_names_of_their_own_and_name_checks() -> None:
    mutants = (*REFERENCES, *MUTANTS)
    assert Counter(mutant.name for mutant in mutants).most_common(1)[0][1] == 1
    assert {check for mutant in mutants for check in mutant.kills} <= {*CHECKS}
    assert all(mutant.kills for mutant in MUTANTS)


@pytest.mark.parametrize("reference", _named(REFERENCES))
def test_reference_passes_every_check(outcomes: Outcomes, reference: Mutant) -> None:
    ours = outcomes.of(reference)
    assert {outcome.check for outcome in ours} == {*CHECKS}
    assert [outcome for outcome in ours if outcome.error] == []


@pytest.mark.parametrize("mutant", _named(MUTANTS))
def test_mutant_is_caught(outcomes: Outcomes, mutant: Mutant) -> None:
    survived = [check for check in mutant.kills if not outcomes.kills(mutant, check)]
    said = [outcome for check in survived for outcome in outcomes.of(mutant, check)]
    assert not survived, f"{mutant.fault}: {said}"


@pytest.mark.parametrize("check", CHECKS)
def test_check_can_fail(outcomes: Outcomes, check: str) -> None:
    meant = [mutant for mutant in MUTANTS if check in mutant.kills]
    failed = [o for mutant in meant for o in outcomes.of(mutant, check) if o.is_failed_assertion()]
    # By an assertion of its own: an error from somewhere would also end a check that has none.
    assert failed, f"no mutant that names {check} makes an assertion of it fail; add one"
