"""Two browser sessions that take turns, and visitors who leave."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import Draw, Visit, wait_until_no_run
from test_buttons import LONG, PROMPT, apart

OTHER = "a white cross on a green background"


def test_who_waits_is_next(visit: Visit, turns_url: str, draw: Draw) -> None:
    first, second = visit(turns_url), visit(turns_url)
    first.start(PROMPT, steps=LONG)
    assert len(first.previews(1)) == 1
    second.start(OTHER, steps=12, seed=1)
    second.wait_for_text("queue: 1/1")
    assert first.is_running
    assert not second.is_running

    first.stop()
    assert first.picture().size == (64, 64)
    picture = second.picture()
    second.wait_until_idle()
    assert second.status == "step 12 of 12: finished"
    assert apart(picture, draw(OTHER, steps=12, after=12, seed=1)) <= 2


def test_who_leaves_ends_the_run(
    visit: Visit, turns_url: str, webui: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []

    def note(pipe: Any, step: int, *args: Any) -> None:
        steps.append(step)

    def noted(*args: Any, callbacks: list[Any], **kwargs: Any) -> Any:
        return stream(*args, callbacks=[*callbacks, note], **kwargs)

    stream = webui.stream
    gone, next_one = visit(turns_url), visit(turns_url)
    monkeypatch.setattr(webui, "stream", noted)
    gone.start(PROMPT, steps=LONG)
    assert len(gone.previews(1)) == 1
    gone.close()
    wait_until_no_run()
    assert 0 < len(steps) < LONG

    monkeypatch.undo()
    next_one.start(OTHER, steps=12)
    assert next_one.picture().size == (64, 64)
