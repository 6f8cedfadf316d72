"""Hold attributes: a run changes them on an object that others use too, and only the run sees it.

While an attribute is held, its object has a class of ours (see :mod:`unicb.given_classes`), in
which the attribute asks who is calling.

A compiled graph may have an attribute's value built in. The change of class makes it a graph for
another object.
"""

from __future__ import annotations

import logging
from types import MemberDescriptorType
from typing import Any, Protocol

from unicb.given_classes import OWN, below, lock, put, take

log = logging.getLogger("unicb")


class Owner(Protocol):
    """An owner says in whose calls an attribute is held."""

    def owns_current_call(self) -> bool:
        """Return whether the current call is one of its own."""


class Hold:
    """A hold is one attribute of one object, held by one run. Made by :func:`hold`."""

    def __init__(self, obj: Any, name: str, value: Any, owner: Owner) -> None:
        self._obj, self._name, self._is_ours = obj, name, owner.owns_current_call
        #: What the run has. May be set.
        self.value = value

    def release(self) -> None:
        """Let go. Idempotent; from any thread, and in any order where there are several."""
        with lock:
            stacks = _stacks[self._name]
            there = stacks.get(id(self._obj), ())
            left = tuple(one for one in there if one is not self)
            if left:
                stacks[id(self._obj)] = left
            elif stacks.pop(id(self._obj), None) is not None:
                take(self._obj, self._name)
        if len(left) < len(there) and log.isEnabledFor(logging.DEBUG):
            log.debug("let go: %s.%s", type(self._obj).__name__, self._name)


def hold(obj: Any, name: str, value: Any, owner: Owner) -> Hold:
    """Have ``obj.name`` be ``value`` in calls of ``owner``, and what it is in all others.

    Of several holds, the latest whose owner is calling answers. To set the attribute changes that
    hold's value, or what is there without any hold if no owner is calling.

    Raises:
        AttributeError: ``obj`` has no such attribute.
        TypeError: no class can be made from that of ``obj``, or be given to it; or the attribute is
            a slot, of which a copy would have what the one who copies reads; or ``__call__``, which
            is for hooks.
    """
    if name == "__call__":
        raise TypeError(f"cannot hold the call of a {type(obj).__name__}: hook it")
    if not hasattr(obj, name):
        raise AttributeError(f"cannot hold {name!r}: this {type(obj).__name__} has none")
    if isinstance(getattr(type(obj), name, None), MemberDescriptorType):
        raise TypeError(f"cannot hold {name!r} of a {type(obj).__name__}: it is a slot")
    new = Hold(obj, name, value, owner)
    with lock:
        stacks = _stacks.setdefault(name, {})
        before = stacks.get(id(obj), ())
        stacks[id(obj)] = (new, *before)
        try:
            put(obj, name, _Attribute)
        except Exception as error:
            del stacks[id(obj)]  # there is none below: it would have had the same class
            raise TypeError(f"cannot hold {name!r} of a {type(obj).__name__}: {error}") from error
    if log.isEnabledFor(logging.DEBUG):
        log.debug("held: %s.%s", type(obj).__name__, name)
    return new


def unheld(obj: Any, name: str) -> Any:
    """Return an object's attribute, as all those have it whose calls no hold answers."""
    for kind in type(obj).__mro__:
        attribute = kind.__dict__.get(name)
        if type(attribute) is _Attribute:
            return attribute.unheld(obj)
        if attribute is not None:
            break
    return getattr(obj, name)


#: The holds by the attribute's name and the object's id, the latest first. A hold keeps its object.
_stacks: dict[str, dict[int, tuple[Hold, ...]]] = {}


class _Attribute:
    """``_Attribute`` is an attribute of a class of ours, that answers by who is calling."""

    def __set_name__(self, front: type, name: str) -> None:
        self._front, self._name, self._stacks = front, name, _stacks[name]
        own: type = vars(front)[OWN]
        found = [vars(base)[name] for base in own.__mro__ if name in vars(base)][:1]
        # A property or the like: it comes before the instance's dictionary.
        self._below: Any = next((one for one in found if hasattr(type(one), "__set__")), None)

    def answering(self, obj: Any) -> Hold | None:
        """Return the hold that answers the current call; None if none does."""
        for one in self._stacks.get(id(obj), ()):
            if one._is_ours():
                return one
        return None

    def __get__(self, obj: Any, kind: type) -> Any:
        if obj is None:
            return below(self._front, None, self._name)
        # As in `answering`, whose call would be a quarter of the time that this takes.
        for one in self._stacks.get(id(obj), ()):
            if one._is_ours():
                return one.value
        return self.unheld(obj)

    def unheld(self, obj: Any) -> Any:
        """Return the attribute's value without any hold."""
        own: Any = getattr(obj, "__dict__", ())
        if self._below is None and self._name in own:
            return own[self._name]
        # Where this finds nothing either, Python goes on to ask the class's own __getattr__.
        return below(self._front, obj, self._name)

    # In this word, PyTorch's compiler is asked to leave a function alone: it must not build the
    # answer for one caller into a graph for all.
    __get__._torchdynamo_disable = True  # type: ignore[attr-defined]
    unheld._torchdynamo_disable = True  # type: ignore[attr-defined]

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
