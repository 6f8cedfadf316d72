"""Hold attributes: a run changes them on an object that others use, too, and only the run sees the
change.

While an attribute is held, its object has a class of ours (see :mod:`unicb.given_classes`), in
which the attribute's value depends on the caller.

A compiled graph may contain an attribute's value. The change of class makes the framework compile a
new graph.
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
        """Return whether the current call belongs to this owner."""


class Hold:
    """A hold is one attribute of one object, held by one run. Made by :func:`hold`."""

    def __init__(self, obj: Any, name: str, value: Any, owner: Owner) -> None:
        self._obj, self._name, self._is_ours = obj, name, owner.owns_current_call
        #: The attribute's value in the run. May be set.
        self.value = value

    def release(self) -> None:
        """Release the attribute. Idempotent; may be called in any thread, and in any order among
        several holds."""
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
    """Make ``obj.name`` return ``value`` in calls of ``owner``, and its own value in all others.

    With several holds, the latest whose owner is calling gives the value. To set the attribute sets
    that hold's value, or the object's own value if no owner is calling.

    Raises:
        AttributeError: ``obj`` has no such attribute.
        TypeError: the class of ``obj`` cannot be subclassed, or its ``__class__`` cannot be set; or
            the attribute is a slot, whose held value a copy would keep; or it is ``__call__``,
            which is for hooks.
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
            # There is no earlier hold: with its class, `put` would not have failed.
            del stacks[id(obj)]
            raise TypeError(f"cannot hold {name!r} of a {type(obj).__name__}: {error}") from error
    if log.isEnabledFor(logging.DEBUG):
        log.debug("held: %s.%s", type(obj).__name__, name)
    return new


def unheld(obj: Any, name: str) -> Any:
    """Return the value that an object's attribute has without any hold."""
    for kind in type(obj).__mro__:
        attribute = kind.__dict__.get(name)
        if type(attribute) is _Attribute:
            return attribute.unheld(obj)
        if attribute is not None:
            break
    return getattr(obj, name)


#: Holds by the attribute's name and the object's id, the latest first. A hold keeps its object
#: alive.
_stacks: dict[str, dict[int, tuple[Hold, ...]]] = {}


class _Attribute:
    """``_Attribute`` is an attribute of a class of ours whose value depends on the caller."""

    def __set_name__(self, front: type, name: str) -> None:
        self._front, self._name, self._stacks = front, name, _stacks[name]
        own: type = vars(front)[OWN]
        found = [vars(base)[name] for base in own.__mro__ if name in vars(base)][:1]
        # A data descriptor such as a property, which comes before the instance's dictionary.
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
        # As in `answering`, repeated here because that call would take a quarter of the time.
        for one in self._stacks.get(id(obj), ()):
            if one._is_ours():
                return one.value
        return self.unheld(obj)

    def unheld(self, obj: Any) -> Any:
        """Return the attribute's value without any hold."""
        own: Any = getattr(obj, "__dict__", ())
        if self._below is None and self._name in own:
            return own[self._name]
        # If this raises AttributeError, Python calls the class's own __getattr__.
        return below(self._front, obj, self._name)

    # This attribute keeps PyTorch's compiler from building one caller's value into a graph for all.
    __get__._torchdynamo_disable = True  # type: ignore[attr-defined]
    unheld._torchdynamo_disable = True  # type: ignore[attr-defined]

    def __set__(self, obj: Any, value: Any) -> None:
        """Set the object's own value; the front has already handled holds."""
        if self._below is None:
            vars(obj)[self._name] = value
        else:
            self._below.__set__(obj, value)

    def __delete__(self, obj: Any) -> None:
        if self._below is not None:
            self._below.__delete__(obj)
        elif vars(obj).pop(self._name, self) is self:
            raise AttributeError(self._name)
