"""Two browser sessions whose generations run at the same time."""

from __future__ import annotations

from conftest import Draw, Visit
from test_buttons import LONG, PROMPT, apart

OTHER = "a white cross on a green background"
FEWER = 500  # a scheduler that is set up for as many goes in other strides than for LONG


def test_stopping_one_leaves_the_other_running(visit: Visit, url: str, draw: Draw) -> None:
    first, second = visit(url), visit(url)
    first.start(PROMPT, steps=FEWER)
    second.start(OTHER, steps=LONG, seed=1)
    assert len(first.previews(2)) == len(second.previews(2)) == 2
    assert first.is_running
    assert second.is_running

    first.stop()
    picture = first.picture()
    first.wait_until_idle()
    before = second.bar()[0]
    after = second.wait_for_step_after(before)
    assert second.is_running
    assert not second.shows_picture()
    second.stop()
    others = second.picture()
    second.wait_until_idle()

    assert apart(picture, draw(PROMPT, steps=FEWER, after=first.bar()[0])) <= 2
    assert after <= second.bar()[0] < LONG
    assert apart(others, draw(OTHER, steps=LONG, after=second.bar()[0], seed=1)) <= 2


def test_discarding_one_leaves_the_other_running(visit: Visit, url: str) -> None:
    first, second = visit(url), visit(url)
    first.start(PROMPT, steps=LONG)
    second.start(OTHER, steps=LONG)
    assert len(first.previews(1)) == len(second.previews(1)) == 1

    second.discard()
    second.wait_until_idle()
    assert second.shows_nothing()
    first.wait_for_step_after(first.bar()[0])
    first.stop()
    assert first.picture().size == (64, 64)
    assert second.shows_nothing()
