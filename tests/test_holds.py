"""Attributes that only the run that holds them sees changed: on plain objects."""

from __future__ import annotations

import copy
import pickle
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unicb.run.holds import Hold, hold


class Run:
    """Whose call it is, is what the test says."""

    calling = False

    def owns_current_call(self) -> bool:
        return self.calling


class Plain:
    def __init__(self) -> None:
        self.scale: Any = [1.0]
        self.other = "other"


class Slotted:
    __slots__ = ("scale",)

    def __init__(self) -> None:
        self.scale: Any = [1.0]


class WithProperty:
    def __init__(self) -> None:
        self._scale: Any = [1.0]

    @property
    def scale(self) -> Any:
        return self._scale

    @scale.setter
    def scale(self, value: Any) -> None:
        self._scale = value


class WithDefault:
    scale: Any = [1.0]


class Registering:
    """Keeps numbers apart from other attributes, as frameworks keep their modules."""

    def __init__(self) -> None:
        vars(self)["numbers"] = {}
        self.scale = 1.0

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, float):
            vars(self).pop(name, None)
            self.numbers[name] = value
        else:
            self.numbers.pop(name, None)
            super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        try:
            return vars(self)["numbers"][name]
        except KeyError:
            raise AttributeError(name) from None


KINDS = (Plain, WithProperty, WithDefault, Registering)


@pytest.fixture
def run() -> Run:
    return Run()


@pytest.mark.parametrize("kind", KINDS)
def test_only_its_run_sees_it(kind: type, run: Run) -> None:
    obj = kind()
    before, found = copy.deepcopy(vars(obj)), obj.scale
    held = hold(obj, "scale", "held", run)
    assert obj.scale is found
    run.calling = True
    assert obj.scale == "held"
    held.value = "moved"
    assert obj.scale == "moved"
    held.release()
    assert obj.scale is found
    assert type(obj) is kind
    assert vars(obj) == before


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", ["a word", 2.0])
def test_writing(kind: type, value: Any, run: Run) -> None:
    """The run's own writing goes with the hold; that of others stays."""
    obj = kind()
    held = hold(obj, "scale", "held", run)
    run.calling = True
    obj.scale = value
    assert (obj.scale, held.value) == (value, value)
    run.calling = False
    assert obj.scale in (1.0, [1.0])
    obj.scale = "of others"
    assert obj.scale == "of others"
    obj.scale = value
    run.calling = True
    held.value = "again"
    assert obj.scale == "again"
    held.release()
    assert obj.scale == value
    assert type(obj) is kind


def test_writing_in_place(run: Run) -> None:
    obj = Plain()
    held = hold(obj, "scale", [0.5], run)
    obj.scale[0] = 2.0
    run.calling = True
    obj.scale[0] = 0.25
    assert (obj.scale, held.value) == ([0.25], [0.25])
    held.release()
    assert obj.scale == [2.0]


@pytest.mark.parametrize("kind", [Plain, Registering])
def test_deleting(kind: type, run: Run) -> None:
    obj = kind()
    if kind is Registering:
        obj.scale = "a word"
    held = hold(obj, "scale", "held", run)
    run.calling = True
    with pytest.raises(AttributeError, match="a run that holds it"):
        del obj.scale
    run.calling = False
    del obj.scale
    assert not hasattr(obj, "scale")
    with pytest.raises(AttributeError):
        del obj.scale
    run.calling = True
    assert obj.scale == "held"
    held.release()
    assert not hasattr(obj, "scale")


@pytest.mark.parametrize("kind", KINDS)
def test_it_looks_as_before(kind: type, run: Run) -> None:
    """Frameworks compare classes, and their names."""
    obj = kind()
    held = hold(obj, "scale", "held", run)
    assert obj.__class__ == kind
    assert kind == obj.__class__
    assert obj.__class__ != Slotted
    assert obj.__class__ in (int, kind)
    assert {kind: "found"}[obj.__class__] == "found"
    assert isinstance(obj, kind)
    for name in ("__name__", "__qualname__", "__module__", "__doc__"):
        assert getattr(type(obj), name) == getattr(kind, name)
    held.release()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("calling", [False, True])
def test_copies_are_plain(kind: type, calling: bool, run: Run) -> None:
    obj = kind()
    found = obj.scale
    held = hold(obj, "scale", "held", run)
    run.calling = calling
    protocols = range(pickle.HIGHEST_PROTOCOL + 1)
    copies = [pickle.loads(pickle.dumps({"in": obj}, protocol))["in"] for protocol in protocols]
    for made in (*copies, copy.copy(obj), copy.deepcopy([obj])[0]):
        assert type(made) is kind
        assert vars(made) == vars(obj)
        assert made.scale == found
    made.scale = "changed"
    assert made.scale == "changed"
    run.calling = False
    assert obj.scale is found
    held.release()


class CopiesItself(Plain):
    def __deepcopy__(self, memo: Any) -> Any:
        made = type(self).__new__(type(self))
        vars(made).update(copy.deepcopy(vars(self), memo), copied=True)
        return made

    def __copy__(self) -> CopiesItself:
        return self


def test_copies_by_its_own_method(run: Run) -> None:
    obj = CopiesItself()
    held = hold(obj, "scale", "held", run)
    made = copy.deepcopy(obj)
    assert type(made) is CopiesItself
    assert vars(made) == {"scale": [1.0], "other": "other", "copied": True}
    assert copy.copy(obj) is obj
    run.calling = True
    assert obj.scale == "held"
    held.release()


class Named(Plain):
    def __reduce__(self) -> str:
        return "NAMED"


NAMED = Named()


def test_pickled_by_name(run: Run) -> None:
    held = hold(NAMED, "scale", "held", run)
    assert pickle.loads(pickle.dumps(NAMED)) is NAMED
    held.release()


def test_several_attributes_and_objects(run: Run) -> None:
    """Each is let go by itself; another object of the class is as it was."""
    first, second = Plain(), Plain()
    scale, other = hold(first, "scale", "held", run), hold(first, "other", "held too", run)
    run.calling = True
    assert type(second) is Plain
    assert (first.scale, first.other, second.scale) == ("held", "held too", [1.0])
    scale.release()
    assert (first.scale, first.other) == ([1.0], "held too")
    again = hold(first, "scale", "again", run)
    other.release()
    other.release()
    assert (first.scale, first.other) == ("again", "other")
    again.release()
    assert type(first) is Plain
    assert vars(first) == vars(second)


def test_the_class_is_changed_meanwhile(run: Run) -> None:
    """As by those who stand before an object's methods."""

    class Spied(Plain):
        pass

    obj = Plain()
    held = hold(obj, "scale", "held", run)
    obj.__class__ = Spied
    run.calling = True
    assert obj.__class__ == Spied
    assert obj.scale == "held"
    held.release()
    assert type(obj) is Spied
    assert obj.scale == [1.0]


def test_a_class_made_from_ours_meanwhile(run: Run) -> None:
    obj = Plain()
    held = hold(obj, "scale", "held", run)
    kind = type(obj)
    obj.__class__ = type("Spied", (kind,), {})
    other = hold(obj, "other", "held too", run)
    run.calling = True
    assert (obj.scale, obj.other) == ("held", "held too")
    held.release()
    assert (obj.scale, obj.other) == ([1.0], "held too")
    other.release()
    assert (obj.scale, obj.other) == ([1.0], "other")
    obj.__class__ = kind
    assert (obj.scale, obj.__class__) == ([1.0], Plain)
    hold(obj, "scale", "held", run).release()
    assert type(obj) is Plain


def test_what_cannot_be_held(run: Run) -> None:
    with pytest.raises(AttributeError, match="cannot hold 'size': this Plain has none"):
        hold(Plain(), "size", 1, run)
    for obj, name in ((1, "real"), ([], "append"), (Plain, "__init__"), (Slotted(), "scale")):
        with pytest.raises(TypeError, match=f"cannot hold '{name}' of a "):
            hold(obj, name, 1, run)
    obj = Plain()
    hold(obj, "scale", "held", run).release()
    assert type(obj) is Plain


def test_the_class_itself_is_asked(run: Run) -> None:
    held = [hold(kind(), "scale", "held", run) for kind in (WithDefault, Plain)]
    with_default, plain = (type(one._obj) for one in held)
    assert with_default.scale is WithDefault.scale
    assert not hasattr(plain, "scale")
    for one in held:
        one.release()


OWNERS, VALUES = st.integers(0, 2), st.integers(0, 9)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("hold"), OWNERS, VALUES),
        st.tuples(st.just("release"), st.integers(0, 9), st.just(0)),
        st.tuples(st.just("write"), VALUES, st.just(0)),
        st.tuples(st.just("set"), st.integers(0, 9), VALUES),
        st.tuples(st.just("call"), OWNERS, st.booleans()),
    ),
    max_size=30,
)


@given(st.sampled_from(KINDS), STEPS)
def test_any_order(kind: type, steps: list[tuple[str, int, int]]) -> None:
    """Against a list of who holds what."""
    obj: Any = kind()
    obj.scale = plain = "plain"
    runs = [Run() for _ in range(3)]
    made: list[Hold] = []
    model: list[tuple[Hold, Run, dict[str, Any]]] = []

    def answering() -> dict[str, Any] | None:
        return next((value for _, run, value in reversed(model) if run.calling), None)

    for what, first, second in steps:
        if what == "hold":
            held = hold(obj, "scale", second, runs[first])
            made.append(held)
            model.append((held, runs[first], {"is": second}))
        elif what == "release" and made:
            held = made[first % len(made)]
            held.release()
            model = [entry for entry in model if entry[0] is not held]
        elif what == "write":
            obj.scale = f"written {first}"
            if (found := answering()) is None:
                plain = f"written {first}"
            else:
                found["is"] = f"written {first}"
        elif what == "set" and made:
            held = made[first % len(made)]
            held.value = second
            for one, _, value in model:
                if one is held:
                    value["is"] = second
        elif what == "call":
            runs[first].calling = bool(second)
        found = answering()
        assert obj.scale == (plain if found is None else found["is"])
        assert (type(obj) is kind) == (not model)
    for held in made:
        held.release()
    assert type(obj) is kind
    assert obj.scale == plain


def test_threads() -> None:
    """Each reads what it holds, or what is there without: never another's, never nothing."""
    obj = Plain()
    caller = threading.local()
    wrong: list[Any] = []

    class Mine:
        def __init__(self, number: int) -> None:
            self.number = number

        def owns_current_call(self) -> bool:
            return getattr(caller, "number", None) == self.number

    def work(number: int) -> None:
        caller.number = number
        for turn in range(300):
            held = hold(obj, "scale", (number, turn), Mine(number))
            wrong.extend(found for found in [obj.scale] if found != (number, turn))
            held.release()
            wrong.extend(found for found in [obj.scale] if found != [1.0])

    def look() -> None:
        while any(thread.is_alive() for thread in threads):
            wrong.extend(found for found in [obj.scale] if found != [1.0])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    look()
    for thread in threads:
        thread.join()
    assert not wrong
    assert type(obj) is Plain
    assert vars(obj) == {"scale": [1.0], "other": "other"}
