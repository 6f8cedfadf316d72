"""Hooks on the call of plain objects, beside what is held of them."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unicb import UnsupportedPipelineError
from unicb.call_hooks import hook_call
from unicb.given_classes import FRONT
from unicb.pipelines import facts_for
from unicb.pipelines.target import Target
from unicb.run.holds import hold
from unicb_numpy import NumpyBackend
from unicb_numpy.pipelines import ToyPipeline


class Base:
    def forward(self, x: int) -> list[Any]:
        return [x]

    def __call__(self, x: int) -> list[Any]:
        return self.forward(x)


class Module(Base):
    """As some frameworks write it, and as a compiler reads what Python understands elsewhere."""

    def __init__(self) -> None:
        self.scale = 1.0
        self.refuses_copies = threading.Lock()

    def forward(self, x: int) -> list[Any]:
        return [*super().forward(x), self.scale]

    def __getstate__(self) -> Any:
        return "more than attributes", {**vars(self), "refuses_copies": None}

    def __setstate__(self, state: Any) -> None:
        vars(self).update(state[1])


class CopiesItself(Module):
    def __deepcopy__(self, memo: Any) -> CopiesItself:
        made = copy.copy(self)
        made.refuses_copies = threading.Lock()
        return made


class Run:
    calling = True

    def owns_current_call(self) -> bool:
        return self.calling


def noting(label: str) -> Callable[..., Any]:
    def around(call: Any, args: Any, kwargs: Any) -> Any:
        return [label, *call(*args, **kwargs)]

    return around


def state(module: Any) -> Any:
    return id(type(module)), sorted(vars(module))


def test_hooks_nest() -> None:
    module = Module()
    before = state(module)
    inner = hook_call(module, noting("inner"))
    outer = hook_call(module, noting("outer"))
    assert module(7) == ["outer", "inner", 7, 1.0]
    assert Module()(7) == [7, 1.0]
    inner()
    inner()
    assert module(x=7) == ["outer", 7, 1.0]
    outer()
    assert module(7) == [7, 1.0]
    assert state(module) == before


def test_one_hook_twice() -> None:
    module, around = Module(), noting("again")
    removers = [hook_call(module, around) for _ in range(2)]
    assert module(7) == ["again", "again", 7, 1.0]
    removers[0]()
    assert module(7) == ["again", 7, 1.0]
    removers[1]()
    assert module(7) == [7, 1.0]


@given(st.lists(st.integers(0, 3), max_size=12))
def test_hooks_and_holds_come_and_go(order: list[int]) -> None:
    """In any order, two of each kind; each number puts one there, or takes it away."""
    module, run = Module(), Run()
    before = state(module)
    there: dict[int, Callable[[], None]] = {}

    def put(which: int) -> Callable[[], None]:
        if which < 2:
            return hook_call(module, noting(str(which)))
        return hold(module, "scale", float(which), run).release  # type: ignore[arg-type]

    for which in order:
        if which in there:
            there.pop(which)()
        else:
            there[which] = put(which)
        hooks = [str(one) for one in reversed(there) if one < 2]
        scale = next((float(one) for one in reversed(there) if one > 1), 1.0)
        assert module(7) == [*hooks, 7, scale]
        assert (type(module) is Module) == (not there)
    for remove in there.values():
        remove()
    assert state(module) == before


@pytest.mark.parametrize("kind", [Module, CopiesItself])
@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy])
def test_copies(kind: type, make: Callable[[Any], Any]) -> None:
    module = kind()
    before = state(module)
    remove = hook_call(module, noting("hooked"))
    with_hold = hold(module, "scale", 2.0, Run())  # type: ignore[arg-type]
    for copied in (make(module), make(make(module))):
        assert state(copied) == before
        assert copied(7) == [7, 1.0]
    with_hold.release()
    assert state(make(module)) == before
    assert module(7) == ["hooked", 7, 1.0]
    remove()
    assert state(module) == before


def test_pickle() -> None:
    module = Module()
    remove = hook_call(module, noting("hooked"))
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        loaded = pickle.loads(pickle.dumps(module, protocol))
        assert state(loaded) == (id(Module), sorted(vars(Module())))
        assert loaded(7) == [7, 1.0]
    remove()


def test_class_as_before() -> None:
    """Also what is asked of the type itself, as MindSpore's compiler does."""
    module = Module()
    remove = hook_call(module, noting("hooked"))
    kind = type(module)
    assert kind == Module == module.__class__
    assert kind in (int, Module)
    assert (str(kind), module.__module__, module.__doc__) == (
        str(Module),
        Module.__module__,
        Module.__doc__,
    )
    assert super(kind, module).forward(7) == [7]
    named = next(one for one in kind.mro() if one.__name__ == "Module")
    assert super(named, module).forward(7) == [7]
    assert isinstance(module, Module)
    remove()
    assert type(module) is Module


def test_class_that_others_give_meanwhile() -> None:
    """One of theirs, made from the own class or from ours."""
    for put_back in (True, False):
        module = Module()
        remove = hook_call(module, noting("hooked"))

        def forward(self: Any, x: int) -> list[Any]:
            return ["theirs", x]

        before = type(module)
        theirs = type("Theirs", (before,), {"forward": forward})
        module.__class__ = theirs
        assert module(7) == ["hooked", "theirs", 7]
        again = hook_call(module, noting("again"))
        assert module(7) == ["again", "hooked", "theirs", 7]
        again()
        if put_back:
            module.__class__ = before
            assert module(7) == ["hooked", 7, 1.0]
        remove()
        assert module(7) == ([7, 1.0] if put_back else ["theirs", 7])
        assert type(module) is (Module if put_back else theirs)


def test_while_it_is_called() -> None:
    """No call notices that hooks come and go in other threads."""
    module, over, errors = Module(), threading.Event(), []

    def change() -> None:
        try:
            while not over.is_set():
                hook_call(module, lambda call, args, kwargs: call(*args, **kwargs))()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=change) for _ in range(2)]
    for thread in threads:
        thread.start()
    found = [module(7) for _ in range(3000)]
    copies = [copy.deepcopy(module) for _ in range(100)]
    over.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert found == [[7, 1.0]] * len(found)
    assert [state(one) for one in (module, *copies)] == [state(Module())] * 101


def test_calls_cannot_be_held() -> None:
    with pytest.raises(TypeError, match="hook it"):
        hold(Module(), "__call__", None, Run())  # type: ignore[arg-type]


def test_object_that_keeps_no_attributes() -> None:
    with pytest.raises(UnsupportedPipelineError, match="it cannot be called"):
        hook_call((1, 2), noting("hooked"))


def test_part_of_a_compiled_model(pipe: ToyPipeline) -> None:
    """The model itself is called as before."""
    part = object()

    class Compiling(NumpyBackend):
        def is_built_in(self, found: Any, models: Any) -> bool:
            assert models == [pipe.unet]
            return found in (part, pipe.unet)

    target = Target(pipe, Compiling(), facts_for(pipe))
    target.check_changeable(pipe.unet)
    target.check_changeable(object())
    with pytest.raises(UnsupportedPipelineError, match=r"compiled model of this ToyPipeline"):
        target.check_changeable(part)


def test_methods_that_were_found_before_another_thread_takes_the_hook() -> None:
    """They were looked up in a class that the object has no more."""
    module = Module()
    remove = hook_call(module, noting("hooked"))
    kind = type(module)
    call = vars(vars(kind)[FRONT])["__call__"]
    remove()
    assert type(module) is Module
    vars(kind)[FRONT].__setattr__(module, "mark", 7)
    assert module.mark == 7
    vars(kind)[FRONT].__delattr__(module, "mark")
    assert not hasattr(module, "mark")
    assert call.__get__(module, kind).__func__ is Module.__call__
    assert type(vars(kind)[FRONT].__reduce_ex__(module, 4)) is tuple
