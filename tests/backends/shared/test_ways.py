"""Guidance is cut exactly in every way that pipelines have, and every class is known."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import ways
from here import NAME, on

from zoo.entry import CASES


def cases() -> Iterator[tuple[str, str]]:
    """All that each class can do itself. On MindSpore, where they take long, two prompts if it can,
    and all of the first class alone: rows are counted and ordered by code that knows no framework.
    """
    for number, title in enumerate(ways.chosen(NAME)):
        possible = [case for case in CASES if case not in ways.all_entries(NAME)[title].impossible]
        best = ["two prompts"] if "two prompts" in possible else possible[:1]
        for case in on(torch=possible, mindspore=best if number else possible):
            yield title, case


@pytest.mark.parametrize(("title", "case"), list(cases()))
def test_cut_is_exact(title: str, case: str) -> None:
    found = ways.outcome(NAME, title, case)
    assert found is not None
    assert (found.verdict, found.why) == ("exact", "")


def test_every_way_is_there() -> None:
    """No way of cutting and no layout of rows is left to the long run over all classes."""
    assert ways.ways_of(NAME, ways.chosen(NAME)) == ways.ways_of(NAME, ways.all_entries(NAME))


def test_every_class_is_known() -> None:
    assert ways.unknown_classes(NAME) == []


def test_code_contradicts_no_facts() -> None:
    """What a class's own code tells is what was read, wherever it tells anything."""
    assert list(ways.contradictions(NAME)) == []
    assert ways.inferred_classes(NAME) > on(torch=120, mindspore=70)
