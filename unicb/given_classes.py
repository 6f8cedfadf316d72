"""Give objects classes of ours for a while, made from their own.

What was there stays where it was (the class's own methods, the instance's dictionary, a framework's
registry of submodules): so nothing has to be put back, copies and pickles are plain, and other
threads find the one or the other at every moment, never nothing.
"""

from __future__ import annotations

import copyreg
import threading
from collections.abc import Callable
from functools import cache, partial
from typing import Any, Protocol, cast


class Standing(Protocol):
    """A standing is a descriptor that stands in a class of ours for an attribute.

    Its ``__set_name__`` is handed the class that it is in, the *front*; what the attribute is
    without it, :func:`below` says.
    """

    def answering(self, obj: Any) -> Any:
        """Return an object that keeps the attribute's value for the caller, as its ``value``; None
        where the value is in its usual place."""


#: Held while an object is given another class.
lock = threading.RLock()
#: In a front, and in a class of ours: the class that it was made from.
OWN = "_unicb_own_class"
#: In a class of ours: its front.
FRONT = "_unicb_front"
#: An attribute of objects for what stands in their class. Copies have none.
KEPT = "_unicb_kept"
_STANDING = "_unicb_standing"
_CLASS = object.__dict__["__class__"]


def put(obj: Any, name: str, make: Callable[[], Standing]) -> None:
    """Have what ``make`` makes stand for an attribute in the object's class. Idempotent.

    Raises:
        TypeError: no class can be made from the object's, or be given to it.
    """
    with lock:
        _give(obj, _own(type(obj)), _standing(obj) | {(name, make)})


def take(obj: Any, name: str) -> None:
    """Have nothing of ours stand for an attribute. Idempotent; in any order."""
    with lock:
        _give(obj, _own(type(obj)), frozenset(pair for pair in _standing(obj) if pair[0] != name))


def below(front: type, obj: Any, name: str) -> Any:
    """Return the value that an attribute of the object has by its own class, and the bases of that.

    Raises:
        AttributeError: it is not there.
    """
    own: type = front.__dict__[OWN]
    for base in own.__mro__:
        # Written for speed: each step of a loop without a callback comes through here.
        attributes = base.__dict__
        if name in attributes:
            found = attributes[name]
            get = getattr(type(found), "__get__", None)
            return found if get is None else get(found, obj, own)
    raise AttributeError(f"{own.__name__!r} object has no attribute {name!r}")


_Standings = frozenset[tuple[str, Callable[[], Standing]]]


def _own(kind: type) -> type:
    return cast(type, vars(kind).get(OWN, kind))


def _standing(obj: Any) -> _Standings:
    return cast(_Standings, vars(type(obj)).get(_STANDING, frozenset()))


def _give(obj: Any, own: type, standing: _Standings) -> None:
    kind = _class_with(own, standing) if standing else own
    if kind is not type(obj):
        _CLASS.__set__(obj, kind)


@cache
def _equal_to_own(kind: type) -> type:
    """Make the type of classes of ours, whose own classes are of type ``kind``.

    Frameworks look whether a class is among some that they know, and would not find ours.
    """

    def __eq__(self: type, other: object) -> bool:
        return isinstance(other, type) and _own(self) is _own(other)

    def __hash__(self: type) -> int:
        return type.__hash__(_own(self))

    def mro(self: type) -> list[type]:
        """Order the front, the own class, and only then the class itself.

        MindSpore's compiler takes ``super()`` for ``super(type(self), self)``, in methods of the
        own class, too.
        """
        order = type.mro(self)
        if OWN not in vars(self):  # somebody's, made from ours
            return order
        first = vars(self)[FRONT], vars(self)[OWN], self
        return [*first, *(base for base in order if not any(base is one for one in first))]

    functions = {"__eq__": __eq__, "__hash__": __hash__, "mro": mro}
    return type(kind)(kind.__name__, (kind,), functions)


@cache
def _class_with(own: type, standing: _Standings) -> type:
    """Make a class like ``own``, with these in place of attributes.

    One for each set, and never changed: a compiled graph knows objects by their class.
    """
    front = _front(own, {name: make() for name, make in standing})
    ours = {FRONT: front, _STANDING: standing, "__qualname__": own.__qualname__, **_as_in(own)}
    return cast(type, _equal_to_own(type(own))(own.__name__, (own, front), ours))


def _as_in(own: type) -> dict[str, Any]:
    return {OWN: own, "__module__": own.__module__, "__doc__": own.__doc__, "__slots__": ()}


def _front(own: Any, attributes: dict[str, Standing]) -> type:
    """Make the class that comes before ``own``. Its name is nobody's: MindSpore's compiler finds
    the ``Some`` of ``super(Some, self)`` by its name.

    Its methods call those of ``own`` by name. Another thread may take the class off the object
    while they run, and ``super()`` would find it no instance of its own any more.
    """

    def __setattr__(self: Any, name: str, value: Any) -> None:
        if name == "__class__":
            with lock:
                return _give(self, _own(value), _standing(self))
        # Frameworks keep submodules apart from other attributes, where no descriptor is asked.
        found = attributes[name].answering(self) if name in attributes else None
        if found is None:
            own.__setattr__(self, name, value)
        else:
            found.value = value

    def __delattr__(self: Any, name: str) -> None:
        if name in attributes and attributes[name].answering(self) is not None:
            raise AttributeError(f"{name!r} cannot be deleted by a run that holds it")
        own.__delattr__(self, name)

    def __reduce_ex__(self: Any, protocol: Any) -> Any:
        with lock:
            reduced = own.__reduce_ex__(self, protocol)
            if isinstance(reduced, str):
                return reduced
            make, arguments, *state = map(_without_kept, reduced)
        as_own = [_own(part) if isinstance(part, type) else part for part in (make, *arguments)]
        if make in (copyreg.__newobj__, copyreg.__newobj_ex__):  # type: ignore[attr-defined]
            # Called by name, pickle would insist on the object's class now.
            as_own[:2] = [partial(make, own)]
        return as_own[0], tuple(as_own[1:]), *state

    def copier(name: str) -> Callable[..., Any]:
        def copied(self: Any, *args: Any) -> Any:
            made = getattr(own, name)(self, *args)
            if OWN in vars(type(made)) and made is not self:
                _CLASS.__set__(made, own)
                vars(made).pop(KEPT, None)
            return made

        return copied

    copiers = {name: copier(name) for name in ("__copy__", "__deepcopy__") if hasattr(own, name)}
    functions = {"__setattr__": __setattr__, "__delattr__": __delattr__}
    functions |= {"__reduce_ex__": __reduce_ex__, **copiers}
    front: Any = type("_Front", (), {**_as_in(own), **attributes, **functions})
    return cast(type, front)


def _without_kept(part: Any) -> Any:
    """Return a part of an object's state, without what stands in the object's class."""
    if isinstance(part, tuple):  # some classes have more than attributes in their state
        return tuple(map(_without_kept, part))
    if isinstance(part, dict) and KEPT in part:
        part = dict(part)
        del part[KEPT]
    return part
