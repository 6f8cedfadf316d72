"""What is known of how each class combines its predictions is what its code says."""

from __future__ import annotations

import combination
from here import NAME, on


def test_combinations_and_scales() -> None:
    assert combination.contradictions(NAME) == []


def test_wrong_facts_would_be_noticed() -> None:
    """On every class, another combination, or a scale in another place, contradicts its code."""
    assert list(combination.unnoticed(NAME)) == []


def test_how_many_are_read() -> None:
    read = {
        title
        for title, (_, facts) in combination.guided_classes(NAME).items()
        if facts.combination != "other" and title not in combination.NOT_READ
    }
    assert len(read) > on(torch=160, mindspore=90)


def test_thresholds() -> None:
    assert list(combination.wrong_thresholds(NAME)) == []


def test_loops_that_set_the_scale_themselves() -> None:
    assert list(combination.wrong_own_schedules(NAME)) == []
    assert list(combination.missing_flags(NAME)) == []
