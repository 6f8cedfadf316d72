"""Hooks on the call of any object, and what cannot have one, where no framework is known."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from unicb import CFGCutoff, GuidanceInterval, Interrupt, UnsupportedPipelineError, bind
from unicb.call_hooks import hook_call
from unicb.run.holds import hold
from unicb_numpy import backend
from unicb_numpy.pipelines import ToyPipeline, ToyUNet


class Called:
    """It has a call, and no method that the call goes through."""

    def __init__(self) -> None:
        self.unet, self.rows = ToyUNet(), list[int]()

    def __call__(self, sample: Any, *args: Any, **kwargs: Any) -> Any:
        self.rows.append(sample.shape[0])
        return self.unet.forward(sample, *args, **kwargs)


class Slotted:
    __slots__ = ("rows", "unet")
    __init__ = Called.__init__
    __call__ = Called.__call__


class Proper(Called):
    """Its class says of itself how it is copied, and what it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.copies = 0

    def __copy__(self) -> Proper:
        made = type(self)()
        made.copies = self.copies + 1
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> Proper:
        return self.__copy__()


KINDS = [Called, Slotted, Proper]


def noting(seen: list[str], word: str) -> Any:
    def around(call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        seen.append(word)
        return call(*args, **kwargs)

    return around


@pytest.mark.parametrize("kind", KINDS)
def test_runs(kind: Any) -> None:
    pipe, reference = ToyPipeline(), ToyPipeline()
    pipe.unet = unet = kind()
    for make, rows in (
        (lambda: CFGCutoff(0.4), [2, 2, 2, 1, 1]),
        (lambda: GuidanceInterval(0.4, 1.0), [1, 1, 2, 2, 2]),
    ):
        unet.rows.clear()
        found = bind(pipe, make())("x", num_inference_steps=5)
        assert np.array_equal(found, bind(reference, make())("x", num_inference_steps=5))
        assert unet.rows == rows
        assert type(unet) is kind
    unet.rows.clear()
    bind(pipe, Interrupt(1))("x", num_inference_steps=5)
    assert unet.rows == [2, 2]


@pytest.mark.parametrize("kind", KINDS)
def test_hooks_nest_and_go_in_any_order(kind: Any) -> None:
    obj, seen = kind(), list[str]()
    sample = ToyPipeline().encode_prompt(["x"]).reshape((1, 4, 1, 1))
    first, second = hook_call(obj, noting(seen, "1")), hook_call(obj, noting(seen, "2"))
    obj(sample, 0.0, sample.reshape((1, 4)))
    assert seen == ["2", "1"]
    first()
    obj(sample, 0.0, sample.reshape((1, 4)))
    assert seen == ["2", "1", "2"]
    second()
    assert type(obj) is kind
    obj(sample, 0.0, sample.reshape((1, 4)))
    assert seen == ["2", "1", "2"]


@pytest.mark.parametrize("kind", KINDS)
def test_copies_are_plain(kind: Any) -> None:
    obj, seen = kind(), list[str]()
    remove = hook_call(obj, noting(seen, "1"))
    copies = [copy.copy(obj), copy.deepcopy(obj), pickle.loads(pickle.dumps(obj)), type(obj)()]
    sample = ToyPipeline().encode_prompt(["x"]).reshape((1, 4, 1, 1))
    for copied in copies:
        copied(sample, 0.0, sample.reshape((1, 4)))
    assert [type(copied) for copied in copies[:3]] == [kind] * 3
    assert all(type(copied) is kind for copied in copies[:3])
    assert seen == []  # not even of what the object's class has made meanwhile
    remove()


def test_another_class_that_it_is_given_stays() -> None:
    class Other(Called):
        pass

    obj = Called()
    remove = hook_call(obj, noting([], "1"))
    obj.__class__ = Other
    remove()
    assert type(obj) is Other


@pytest.mark.parametrize("hook_first", [True, False])
@pytest.mark.parametrize("hook_last", [True, False])
def test_beside_a_hold(hook_first: bool, hook_last: bool) -> None:
    """Both give the object a class; each goes, and leaves the other."""

    class Owner:
        def owns_current_call(self) -> bool:
            return True

    obj, seen = Called(), list[str]()
    owner: Any = Owner()
    sample = ToyPipeline().encode_prompt(["x"]).reshape((1, 4, 1, 1))
    inputs = sample, 0.0, sample.reshape((1, 4))
    if hook_first:
        remove, held = hook_call(obj, noting(seen, "1")), hold(obj, "rows", [7], owner)
    else:
        held, remove = hold(obj, "rows", [7], owner), hook_call(obj, noting(seen, "1"))
    obj(*inputs)
    assert (seen, obj.rows) == (["1"], [7, 1])
    if hook_last:
        held.release()
        obj(*inputs)
        assert (seen, obj.rows) == (["1", "1"], [1])
        remove()
        obj(*inputs)
        assert (seen, obj.rows) == (["1", "1"], [1, 1])
    else:
        remove()
        obj(*inputs)
        assert (seen, obj.rows) == (["1"], [7, 1, 1])
        held.release()
        obj(*inputs)
        assert (seen, obj.rows) == (["1"], [1])
    assert type(copy.deepcopy(obj)) is Called


@pytest.mark.parametrize("obj", [lambda *args, **kwargs: None, print, len])
def test_what_cannot_be_hooked(obj: Any) -> None:
    with pytest.raises(UnsupportedPipelineError, match="its class is closed to Python"):
        hook_call(obj, noting([], "1"))


def test_what_cannot_be_hooked_is_refused_at_bind() -> None:
    pipe = ToyPipeline()
    unet: Any = pipe.unet
    pipe.unet = lambda *args, **kwargs: unet(*args, **kwargs)  # type: ignore[assignment]
    for callback in (CFGCutoff(0.4), GuidanceInterval(0.4, 1.0)):
        with pytest.raises(UnsupportedPipelineError, match="by its unet: a function cannot be"):
            bind(pipe, callback)
    expected = bind(ToyPipeline(), Interrupt(1))("x", num_inference_steps=5)
    assert np.array_equal(bind(pipe, Interrupt(1))("x", num_inference_steps=5), expected)
    pipe.unet = object()  # type: ignore[assignment]
    with pytest.raises(UnsupportedPipelineError, match="it cannot be called"):
        bind(pipe, CFGCutoff(0.4))
    with pytest.raises(UnsupportedPipelineError, match="it cannot be called"):
        backend.hook(pipe.unet, noting([], "1"))
