"""What the code of a pipeline's class says of its call: read once, in one place."""

from __future__ import annotations

import ast
import functools
import gc
import weakref
from collections.abc import Callable as Function
from pathlib import Path
from typing import Any

import loops
import numpy as np
import pytest
from test_handing_on import HandsOn

import unicb
from unicb import Callback, CFGCutoff, Step, UnsupportedPipelineError, bind
from unicb.callbacks._prompt_loop import prompt_loop
from unicb.guidance._inference import hands_on_callback, infer
from unicb.pipelines import source
from unicb.pipelines.source import CALLBACK, CallSource
from unicb_numpy.pipelines import ToyPipeline


class Passes(ToyPipeline):
    """Hands on whatever it is given."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(*args, **kwargs)


class PassesTwice(Passes):
    def __call__(self, prompt: Any, **options: Any) -> Any:
        return super().__call__(prompt, **options)


class Mixin:
    """Has no base with a call of its own."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(*args, **kwargs)  # type: ignore[misc]


class Mixed(Mixin, ToyPipeline):
    pass


class TakesOutAndHandsOn(ToyPipeline):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        callback = kwargs.pop("callback_on_step_end", None)
        return super().__call__(*args, callback_on_step_end=callback, **kwargs)


class PassesFromAFunction(ToyPipeline):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        def run() -> Any:
            return super(PassesFromAFunction, self).__call__(*args, **kwargs)

        return run()


class HandsOnNothing(ToyPipeline):
    def __call__(self, prompt: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        return super().__call__(prompt)


class TakesOut(ToyPipeline):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        kwargs.pop("callback_on_step_end", None)
        return super().__call__(*args, **kwargs)


class Deletes(ToyPipeline):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        del kwargs["callback_on_step_end"]
        return super().__call__(*args, **kwargs)


class HasOneOfItsOwn(ToyPipeline):
    """Given another one, it would hand it on twice."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(*args, callback_on_step_end=None, **kwargs)


class HandsOnOthers(ToyPipeline):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        kwargs = {name: value for name, value in kwargs.items() if "callback" not in name}
        return super().__call__(*args, **kwargs)


class PassesToOneThatDoesNot(TakesOut):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(*args, **kwargs)


PASSING = [Passes, PassesTwice, Mixed, TakesOutAndHandsOn, PassesFromAFunction]
KEEPING = [
    *(HandsOnNothing, TakesOut, Deletes, HasOneOfItsOwn, HandsOnOthers, PassesToOneThatDoesNot),
]


@pytest.mark.parametrize("kind", PASSING)
def test_what_is_handed_on_is_taken(kind: type[ToyPipeline]) -> None:
    """And the pictures are those of the class below."""

    class Early(Callback):
        def before_first_step(self, step: Step) -> None:
            seen.append("before")

        def on_step_end(self, step: Step) -> None:
            seen.append(step.index)

    seen: list[Any] = []
    assert {CALLBACK, "guidance_scale"} <= CallSource.of(kind).parameters
    pipe, below = kind(), ToyPipeline()
    out = pipe("x", num_inference_steps=4, **bind(pipe, CFGCutoff(0.5), Early()))
    assert seen == ["before", 0, 1, 2, 3]
    same = below("x", num_inference_steps=4, **bind(below, CFGCutoff(0.5)))
    assert (np.asarray(out) == np.asarray(same)).all()


@pytest.mark.parametrize("kind", KEEPING)
def test_what_is_kept_is_not_taken(kind: type[ToyPipeline]) -> None:
    with pytest.raises(UnsupportedPipelineError, match=f"takes no {CALLBACK}"):
        bind(kind())


def test_only_what_is_kept_is_not_taken() -> None:
    assert "guidance_scale" in CallSource.of(TakesOut).parameters
    assert "guidance_scale" not in CallSource.of(HandsOnNothing).parameters


def test_passed_to_one_that_hands_it_to_a_pipeline_inside() -> None:
    class PassesToThat(HandsOn):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return super().__call__(*args, **kwargs)

    class MixedWithThat(Mixin, HandsOn):
        pass

    for kind in (PassesToThat, MixedWithThat):
        assert hands_on_callback(kind)
        with pytest.raises(UnsupportedPipelineError, match="bind that one"):
            bind(kind())


def test_there_is_one_of_a_class() -> None:
    class Inherits(loops.ConditionalFirst):
        pass

    found = CallSource.of(Inherits)
    assert CallSource.of(Inherits) is found
    assert found.kind is Inherits
    assert found.owner is loops.ConditionalFirst
    assert found.written is CallSource.of(loops.ConditionalFirst).written
    assert [call.kind for call in found.calls] == [loops.ConditionalFirst, ToyPipeline]


def test_below_decorators() -> None:
    def decorated(call: Function[..., Any]) -> Function[..., Any]:
        @functools.wraps(call)
        def around(*args: Any, **kwargs: Any) -> Any:
            return call(*args, **kwargs)

        return around

    class Decorated(ToyPipeline):
        __call__ = decorated(loops.ConditionalFirst.__call__)

    found, plain = CallSource.of(Decorated), CallSource.of(loops.ConditionalFirst)
    assert found.code is plain.code
    assert found.code in found.codes
    assert found.parameters == plain.parameters
    assert found.written.text == plain.written.text


def test_innermost_loop() -> None:
    class Nested(ToyPipeline):
        def __call__(self, callback_on_step_end: Any) -> Any:  # type: ignore[override]
            for stage in range(2):
                while stage:
                    callback_on_step_end(self, stage, 0, {})
                for _ in range(3):
                    pass

    loop = CallSource.of(Nested).written.loop
    assert isinstance(loop, ast.While)
    assert CallSource.of(Passes).written.loop is None


def test_code_is_parsed_once_and_only_where_it_must_be(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(ToyPipeline):
        unicb_facts = None  # type: ignore[assignment]
        __call__ = loops.ConditionalFirst.__call__  # type: ignore[assignment]

    parsed: list[Any] = []
    read = source.WrittenCall
    monkeypatch.setattr(source, "WrittenCall", lambda call: parsed.append(call) or read(call))
    bind(Own())
    assert CallSource.of(Own).reads_flag is False
    assert parsed == []
    for _ in range(2):
        assert infer(Own) is not None
        assert prompt_loop(Own).taken
        assert prompt_loop(type("Inherits", (Own,), {})).taken
    assert parsed.count(Own.__call__) == 1


def test_it_does_not_keep_its_class() -> None:
    class Gone(Passes):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return super().__call__(*args, **kwargs)

    kept = CallSource.of(Gone)
    assert (kept.parameters, kept.codes, kept.written.tree, kept.reads_flag) is not None
    assert not kept.hands_on
    gone = weakref.ref(Gone)
    del Gone
    gc.collect()
    assert gone() is None
    with pytest.raises(ReferenceError, match="class is gone"):
        assert kept.kind


def test_another_call_is_read_anew() -> None:
    """As other libraries put them in place of a class's own."""

    class Base(ToyPipeline):
        __call__ = loops.Switched.__call__  # type: ignore[assignment]

    class Patched(Base):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return super().__call__(*args, **kwargs)

    assert CALLBACK in CallSource.of(Patched).parameters
    assert not CallSource.of(Patched).reads_flag
    Base.__call__ = HandsOnNothing.__call__  # type: ignore[assignment]
    assert CALLBACK not in CallSource.of(Patched).parameters
    Base.__call__ = ToyPipeline.__call__  # type: ignore[assignment]
    assert CALLBACK in CallSource.of(Patched).parameters
    assert CallSource.of(Patched).reads_flag
    assert ToyPipeline.__call__.__code__ in CallSource.of(Patched).codes


def test_code_that_cannot_be_read() -> None:
    names: dict[str, Any] = {"ToyPipeline": ToyPipeline}
    exec(
        "class Typed(ToyPipeline):\n"
        "    def __call__(self, prompt, callback_on_step_end=None, **kwargs):\n"
        "        f(callback_on_step_end=callback_on_step_end)\n"
        "        return super().__call__(prompt, **kwargs)\n",
        names,
    )
    kind = names["Typed"]
    found = CallSource.of(kind)
    assert {"prompt", CALLBACK} <= found.parameters
    assert (found.written.tree, found.written.loop, found.hands_on) == (None, None, False)
    assert found.names_callback
    with pytest.raises(UnsupportedPipelineError, match="code cannot be read") as caught:
        prompt_loop(kind)
    assert isinstance(caught.value.__cause__, OSError)


def test_class_without_a_call() -> None:
    class Silent:
        pass

    found = CallSource.of(Silent)
    assert (found.owner, found.calls, found.code) == (None, [], None)
    assert (found.parameters, found.hands_on, found.written.tree) == (frozenset(), False, None)


def test_nothing_else_reads_code() -> None:
    """No module but these disassembles, reads source text, or parses it."""
    readers = {"dis", "getsource", "getsourcelines", "parse"}
    root = Path(unicb.__file__).parent
    found: dict[str, set[str]] = {}
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names: set[str] = set()
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {name.name for name in node.names}
                names |= {node.module or ""} if isinstance(node, ast.ImportFrom) else set()
            elif isinstance(node, ast.Attribute):
                of = ast.unparse(node.value)
                names = {node.attr} if of in ("ast", "inspect", "dis") else set()
            if used := names & readers:
                found.setdefault(path.relative_to(root).as_posix(), set()).update(used)
    assert found == {
        "pipelines/source.py": {"dis"},
        "pipelines/_written.py": {"getsource", "parse"},
    }


class NamesItsBase(ToyPipeline):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return ToyPipeline.__call__(self, *args, **kwargs)


class NamesItsBaseByAnAttribute(Mixin, ToyPipeline):
    """As runtimes' classes do, whose own bases have a call that is not meant."""

    auto_model_class = ToyPipeline

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.auto_model_class.__call__(self, *args, **kwargs)


class NamesAClassBeside(ToyPipeline):
    """Whose loop is not among its own methods, nor its bases'."""

    class Loop(ToyPipeline):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return super().__call__(*args, **kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return type(self).Loop.__call__.__get__(self)(*args, **kwargs)


class AddsKeywords(ToyPipeline):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        kwargs = {"seed": 0, **kwargs}
        kwargs = dict(kwargs, num_images_per_prompt=1)
        kwargs = kwargs | {"output_type": "np"}
        kwargs = kwargs.copy()
        return super().__call__(*args, **kwargs)


def patched(call: Function[..., Any]) -> Function[..., Any]:
    """As other libraries do it, without functools.wraps."""

    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:
        return call(self, *args, **kwargs)

    return __call__


class IsPatched(ToyPipeline):
    __call__ = patched(ToyPipeline.__call__)


class IsTypedIn(ToyPipeline):
    """As in a console, which keeps no source text."""

    names: dict[str, Any] = {"Base": ToyPipeline}
    exec(
        "class Typed(Base):\n"
        "    def __call__(self, *args, **kwargs):\n"
        "        return super().__call__(*args, **kwargs)\n",
        names,
    )


@pytest.mark.parametrize(
    "kind",
    [
        *(NamesItsBase, NamesItsBaseByAnAttribute, AddsKeywords, IsPatched),
        IsTypedIn.names["Typed"],
    ],
    ids=lambda kind: kind.__name__,
)
def test_what_is_handed_on_in_other_ways(kind: type[ToyPipeline]) -> None:
    source = CallSource.of(kind)
    assert {CALLBACK, "guidance_scale"} <= source.parameters
    assert (source.reads_flag, source.hands_on) == (True, False)
    test_what_is_handed_on_is_taken(kind)


class TakesAnother(ToyPipeline):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        kwargs = dict.fromkeys(kwargs)
        return super().__call__(*args, **kwargs)


class NamesWhatIsNotKnown(ToyPipeline):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return nowhere(self, *args, **kwargs)  # type: ignore[name-defined] # noqa: F821


class NamesTwo(ToyPipeline):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        base = ToyPipeline if args else HandsOn
        return ToyPipeline.__call__(self, **kwargs) or base.__call__(self, *args, **kwargs)


@pytest.mark.parametrize("kind", [TakesAnother, NamesWhatIsNotKnown, NamesTwo, NamesAClassBeside])
def test_what_is_not_known_says_so(kind: type[ToyPipeline]) -> None:
    with pytest.raises(UnsupportedPipelineError, match=r"does not say that its \*\*kwargs"):
        bind(kind())
