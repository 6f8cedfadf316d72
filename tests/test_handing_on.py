"""Pipelines that call no callback themselves but hand it on are known by their code."""

from __future__ import annotations

from typing import Any

import pytest

from unicb import UnsupportedPipelineError, bind
from unicb.guidance._inference import hands_on_callback
from unicb.pipelines import source
from unicb_numpy.pipelines import ToyPipeline


class HandsOn(ToyPipeline):
    unicb_facts = None  # type: ignore[assignment]

    def __call__(self, *args: Any, callback_on_step_end: Any = None, **kwargs: Any) -> Any:
        return self.inside(*args, callback_on_step_end=callback_on_step_end, **kwargs)

    def __init__(self) -> None:
        super().__init__()
        self.inside = ToyPipeline()


class WrapsOneThatHandsOn(HandsOn):
    def __call__(self, *args: Any, callback_on_step_end: Any = None, **kwargs: Any) -> Any:
        return super().__call__(*args, callback_on_step_end=callback_on_step_end, **kwargs)


class HandsOnInAFunction(HandsOn):
    def __call__(self, prompt: Any, callback_on_step_end: Any = None, **kwargs: Any) -> Any:
        def run(text: str) -> Any:
            return self.inside(text, callback_on_step_end=callback_on_step_end, **kwargs)

        return [run(text) for text in prompt]


class Wraps(ToyPipeline):
    unicb_facts = None  # type: ignore[assignment]

    def __call__(self, *args: Any, callback_on_step_end: Any = None, **kwargs: Any) -> Any:
        return super().__call__(*args, callback_on_step_end=callback_on_step_end, **kwargs)


class HasAMethodForIt(ToyPipeline):
    unicb_facts = None  # type: ignore[assignment]

    def __call__(self, *args: Any, callback_on_step_end: Any = None, **kwargs: Any) -> Any:
        return self.loop(*args, callback_on_step_end=callback_on_step_end, **kwargs)

    def loop(self, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(*args, **kwargs)


class DoesBoth(ToyPipeline):
    unicb_facts = None  # type: ignore[assignment]

    def __call__(self, *args: Any, callback_on_step_end: Any = None, **kwargs: Any) -> Any:
        ToyPipeline()(*args, callback_on_step_end=callback_on_step_end, **kwargs)
        return callback_on_step_end(self, 0, 0.0, {})


@pytest.mark.parametrize("kind", [HandsOn, WrapsOneThatHandsOn, HandsOnInAFunction])
def test_those_that_hand_it_on_are_refused(kind: type[HandsOn]) -> None:
    assert hands_on_callback(kind)
    with pytest.raises(UnsupportedPipelineError, match="bind that one"):
        bind(kind())
    bind(kind().inside)


@pytest.mark.parametrize("kind", [ToyPipeline, Wraps, HasAMethodForIt, DoesBoth])
def test_those_whose_own_loop_calls_it_are_not(kind: type[ToyPipeline]) -> None:
    assert not hands_on_callback(kind)
    bind(kind())


@pytest.mark.parametrize("kind", [Wraps, HasAMethodForIt])
def test_a_wrapped_loop_runs_with_callbacks(kind: type[ToyPipeline]) -> None:
    seen: list[int] = []
    pipe = kind()
    pipe("x", num_inference_steps=3, **bind(pipe, lambda pipe, step, t, kw: seen.append(step)))
    assert seen == [0, 1, 2]


def test_no_source_is_parsed_where_no_call_has_the_keyword(monkeypatch: pytest.MonkeyPatch) -> None:
    class Plain(ToyPipeline):
        def __call__(self, *args: Any, callback_on_step_end: Any = None, **kwargs: Any) -> Any:
            return callback_on_step_end(self, 0, 0.0, {})

    class Handing(ToyPipeline):
        def __call__(self, *args: Any, callback_on_step_end: Any = None, **kwargs: Any) -> Any:
            return ToyPipeline()(*args, callback_on_step_end=callback_on_step_end)

    parsed: list[Any] = []
    read = source.WrittenCall
    monkeypatch.setattr(source, "WrittenCall", lambda call: parsed.append(call) or read(call))
    assert not hands_on_callback(Plain)
    assert parsed == []
    assert hands_on_callback(Handing)
    assert hands_on_callback(Handing)
    assert parsed == [Handing.__call__]
