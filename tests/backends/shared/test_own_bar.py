"""The pipelines' own progress bar makes room for Progress, and comes back."""

from __future__ import annotations

from collections.abc import Callable as Function
from typing import Any

import pytest
from here import harness

from unicb import Callback, Progress, Step, bind
from unicb.callbacks.timing import ProgressState
from unicb.testing import Case

CASE = Case("text2img")


@pytest.fixture
def pipe() -> Any:
    """As its users have it: with its bar, and nothing said about it."""
    made = harness.build(CASE.kind)
    del made._progress_bar_config
    return made


@pytest.fixture
def bars(capfd: pytest.CaptureFixture[str]) -> Function[[], int]:
    """How many bars were shown since this was last asked."""

    def count() -> int:
        # A bar is drawn at its beginning once; at its end, it may be so twice.
        return capfd.readouterr().err.count(f" 0/{CASE.steps} ")

    return count


class Fail(Callback):
    def on_step_end(self, step: Step) -> None:
        raise ZeroDivisionError


def test_it_is_not_shown_beside_progress(pipe: Any, bars: Function[[], int]) -> None:
    states: list[ProgressState] = []
    plain = harness.run(pipe, CASE)
    assert bars() == 1
    kind, config = type(pipe), pipe._progress_bar_config
    callbacks = bind(pipe, Progress(states.append))
    shown = harness.run(callbacks, CASE)
    assert (bars(), len(states)) == (0, CASE.steps)
    assert (shown == plain).all()
    assert type(pipe) is kind
    assert pipe._progress_bar_config is config
    harness.run(pipe, CASE)
    assert bars() == 1


def test_unpacked(pipe: Any, bars: Function[[], int]) -> None:
    states: list[ProgressState] = []
    harness.run(pipe, CASE, **bind(pipe, Progress(states.append)))
    assert (bars(), len(states)) == (0, CASE.steps)
    harness.run(pipe, CASE)
    assert bars() == 1


def test_it_is_back_after_an_error(pipe: Any, bars: Function[[], int]) -> None:
    with pytest.raises(ZeroDivisionError):
        harness.run(bind(pipe, Progress(lambda state: None), Fail()), CASE)
    assert bars() == 0
    assert "_progress_bar_config" not in vars(pipe)
    harness.run(pipe, CASE)
    assert bars() == 1
