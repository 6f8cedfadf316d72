"""Holds: what a run changes on an object that others use too, and only the run sees.

While an attribute is held, its object has a class of ours, made from its own, in which the
attribute asks who is calling. What was there stays where it was (the instance's dictionary,
a framework's registry of submodules): so nothing has to be put back, copies and pickles are
plain, and other threads find the one or the other at every moment, never nothing.

A compiled graph may have an attribute's value built in. The change of class makes it a graph for
another object.
"""

from __future__ import annotations

import threading
from functools import cache
from types import MemberDescriptorType
from typing import TYPE_CHECKING, Any, cast

from unicb.lookalike import give_class, lookalike, own

if TYPE_CHECKING:
    from unicb.run.asked import AskedRun


class Hold:
    """One attribute of one object, held by one run. Made by :func:`hold`."""

    def __init__(self, obj: Any, name: str, value: Any, owner: AskedRun) -> None:
        self._obj, self._name, self._is_ours = obj, name, owner.owns_current_call
        #: What the run has. May be set.
        self.value = value

    def release(self) -> None:
        """Let go. Idempotent; from any thread, and in any order where there are several."""
        with _lock:
            stacks = _stacks[self._name]
            left = tuple(one for one in stacks.get(id(self._obj), ()) if one is not self)
            if left:
                stacks[id(self._obj)] = left
            elif stacks.pop(id(self._obj), None) is not None:
                _give_class(self._obj, _own_class(self._obj))


def hold(obj: Any, name: str, value: Any, owner: AskedRun) -> Hold:
    """Have ``obj.name`` be ``value`` in calls of ``owner``, and what it is in all others.

    Of several holds, the latest whose owner is calling answers. To set the attribute changes that
    hold's value, or what is there without any hold if no owner is calling.

    Raises:
        AttributeError: ``obj`` has no such attribute.
        TypeError: no class can be made from that of ``obj``, or be given to it; or the attribute is
            a slot, of which a copy would have what the one who copies reads.
    """
    if not hasattr(obj, name):
        raise AttributeError(f"cannot hold {name!r}: this {type(obj).__name__} has none")
    if isinstance(getattr(type(obj), name, None), MemberDescriptorType):
        raise TypeError(f"cannot hold {name!r} of a {type(obj).__name__}: it is a slot")
    new = Hold(obj, name, value, owner)
    with _lock:
        stacks = _stacks.setdefault(name, {})
        before = stacks.get(id(obj), ())
        stacks[id(obj)] = (new, *before)
        try:
            _give_class(obj, _own_class(obj))
        except Exception as error:
            del stacks[id(obj)]  # there is none below: it would have had the same class
            raise TypeError(f"cannot hold {name!r} of a {type(obj).__name__}: {error}") from error
    return new


_lock = threading.RLock()
#: The holds by the attribute's name and the object's id, the latest first. A hold keeps its object.
_stacks: dict[str, dict[int, tuple[Hold, ...]]] = {}
#: In a class of which something is held.
_HELD = "_unicb_held"


class _Attribute:
    """An attribute of a class of ours, that answers by who is calling."""

    def __set_name__(self, kind: type, name: str) -> None:
        self._kind, self._name, self._stacks = kind, name, _stacks[name]
        found = [vars(base)[name] for base in kind.__mro__[1:] if name in vars(base)][:1]
        # A property or the like: it comes before the instance's dictionary.
        self._below: Any = next((one for one in found if hasattr(type(one), "__set__")), None)

    def answering(self, obj: Any) -> Hold | None:
        """The hold of the one who is calling."""
        for one in self._stacks.get(id(obj), ()):
            if one._is_ours():
                return one
        return None

    def __get__(self, obj: Any, kind: type) -> Any:
        if obj is None:
            return getattr(super(self._kind, kind), self._name)
        # As in `answering`, whose call would be a quarter of the time that this takes.
        for one in self._stacks.get(id(obj), ()):
            if one._is_ours():
                return one.value
        if self._below is None:
            try:
                return obj.__dict__[self._name]
            except (AttributeError, KeyError):
                pass
        # Where this finds nothing either, Python goes on to ask the class's own __getattr__.
        return getattr(super(self._kind, obj), self._name)

    # In this word, PyTorch's compiler is asked to leave a function alone: it must not build the
    # answer for one caller into a graph for all.
    __get__._torchdynamo_disable = True  # type: ignore[attr-defined]

    def __set__(self, obj: Any, value: Any) -> None:
        """Set what is there without a hold: who is calling was asked before."""
        if self._below is None:
            vars(obj)[self._name] = value
        else:
            self._below.__set__(obj, value)

    def __delete__(self, obj: Any) -> None:
        if self._below is not None:
            self._below.__delete__(obj)
        elif vars(obj).pop(self._name, self) is self:
            raise AttributeError(self._name)


def _own_class(obj: Any) -> type:
    """The class that the object has when nothing of it is held."""
    kind = type(obj)
    return cast(type, kind.__base__) if _HELD in vars(kind) else kind


def _give_class(obj: Any, own_class: type) -> None:
    """Give the object the class that what is held of it asks for."""
    names = frozenset(name for name, stacks in _stacks.items() if id(obj) in stacks)
    # A class that is hooks' on one object passes for its own, in the cache of classes too.
    make = _class_with if own(own_class) is own_class else _class_with.__wrapped__
    kind = make(own_class, names) if names else own_class
    if kind is not type(obj):
        give_class(obj, kind)


@cache
def _class_with(own_class: type, names: frozenset[str]) -> type:
    """A class like ``own_class`` in which these attributes answer by who is calling.

    One for each set of names, and never changed: a compiled graph knows objects by their class.
    """
    attributes = {name: _Attribute() for name in names}

    def __setattr__(self: Any, name: str, value: Any) -> None:
        if name == "__class__":
            with _lock:
                return _give_class(self, own(value))
        # Frameworks keep submodules apart from other attributes, where no descriptor is asked.
        found = attributes[name].answering(self) if name in attributes else None
        if found is None:
            super(kind, self).__setattr__(name, value)
        else:
            found.value = value

    def __delattr__(self: Any, name: str) -> None:
        if name in attributes and attributes[name].answering(self) is not None:
            raise AttributeError(f"{name!r} cannot be deleted by a run that holds it")
        super(kind, self).__delattr__(name)

    methods = {"__setattr__": __setattr__, "__delattr__": __delattr__, _HELD: True}
    kind: Any = lookalike(own_class, {**attributes, **methods})
    return cast(type, kind)
