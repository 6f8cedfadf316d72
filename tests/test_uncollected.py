"""Frames of other threads: nothing is collected while they are looked at."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest

from unicb.run import uncollected as module
from unicb.run.loop import FrameId, is_given_anywhere, runs_in_thread
from unicb.run.uncollected import _Uncollected


@pytest.fixture(params=[True, False], ids=["enabled", "disabled"])
def enabled(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Whether garbage is collected, as the user has it."""
    was = gc.isenabled()
    (gc.enable if request.param else gc.disable)()
    yield request.param
    (gc.enable if was else gc.disable)()


def test_is_as_before_after_the_outermost(enabled: bool) -> None:
    uncollected = _Uncollected()
    with uncollected:
        assert not gc.isenabled()
        with uncollected:
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled() == enabled


def test_is_as_before_after_an_error(enabled: bool) -> None:
    with pytest.raises(KeyError), _Uncollected():
        raise KeyError
    assert gc.isenabled() == enabled


def test_threads_that_come_and_go(enabled: bool) -> None:
    uncollected, seen = _Uncollected(), []

    def work() -> None:
        for _ in range(2000):
            with uncollected:
                seen.append(gc.isenabled())

    usual = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.setswitchinterval(usual)
    assert not any(seen)
    assert gc.isenabled() == enabled


@pytest.mark.parametrize("number", range(3))
def test_a_signal_in_between(enabled: bool, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its handler looks at frames, too, in the same thread: before gc is asked, before it is
    disabled, before it is enabled again."""
    uncollected, calls, came = _Uncollected(), list[str](), []

    class Watched:
        """gc, where a handler comes before the call of this number."""

        def __getattr__(self, name: str) -> Any:
            calls.append(name)
            if len(calls) == number + 1:
                came.append(name)
                with uncollected:
                    pass
            return getattr(gc, name)

    monkeypatch.setattr(module, "gc", Watched())
    with uncollected:
        pass
    asked = ["isenabled", "disable"] + ["enable"] * enabled
    assert came == asked[number : number + 1]
    assert gc.isenabled() == enabled


@pytest.mark.skipif(
    sys.version_info >= (3, 12), reason="later Pythons collect between instructions"
)
@pytest.mark.parametrize("of_one", [True, False])
def test_where_frames_are_looked_at(of_one: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    frames, seen = sys._current_frames, []

    def noting() -> Any:
        seen.append(gc.isenabled())
        return frames()

    monkeypatch.setattr(sys, "_current_frames", noting)
    if of_one:
        runs_in_thread(FrameId(0, noting.__code__), threading.get_ident())
    else:
        is_given_anywhere(lambda: None)
    assert seen == [False]
    assert gc.isenabled()


def test_in_later_pythons() -> None:
    later = sys.version_info >= (3, 12)
    assert isinstance(module.uncollected, nullcontext if later else _Uncollected)
