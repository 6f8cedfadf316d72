"""Give objects classes of ours for a while, made from their own.

The class's own methods, the instance's dictionary and a framework's registry of submodules stay
where they are: so nothing has to be put back, copies and pickles are plain, and another thread
always finds either the old attribute or the new one.
"""

from __future__ import annotations

import copyreg
import threading
from collections.abc import Callable
from functools import cache, partial
from typing import Any, Protocol, cast


class Standing(Protocol):
    """A standing is a descriptor that replaces an attribute in a class of ours.

    Its ``__set_name__`` gets the class that contains it, the *front*; :func:`below` returns the
    attribute's value without the standing.
    """

    def answering(self, obj: Any) -> Any:
        """Return an object whose ``value`` is the attribute's value; None if the value is in its
        usual place."""


#: Held while an object is given another class.
lock = threading.RLock()
#: Attribute of a front, and of a class of ours: the class that it was made from.
OWN = "_unicb_own_class"
#: Attribute of a class of ours: its front.
FRONT = "_unicb_front"
#: Attribute of an object: the data of the standings in its class. Copies do not have it.
KEPT = "_unicb_kept"
_STANDING = "_unicb_standing"
_CLASS = object.__dict__["__class__"]


def put(obj: Any, name: str, make: Callable[[], Standing]) -> None:
    """Replace an attribute in the object's class by the standing that ``make`` makes. Idempotent.

    Raises:
        TypeError: the object's class cannot be subclassed, or the object's ``__class__`` cannot be
            set.
    """
    with lock:
        _give(obj, _own(type(obj)), _standing(obj) | {(name, make)})


def take(obj: Any, name: str) -> None:
    """Remove our standing for an attribute. Idempotent; attributes may be removed in any order."""
    with lock:
        _give(obj, _own(type(obj)), frozenset(pair for pair in _standing(obj) if pair[0] != name))


def below(front: type, obj: Any, name: str) -> Any:
    """Return an attribute's value from the object's own class and its bases.

    Raises:
        AttributeError: none of these classes has the attribute.
    """
    own: type = front.__dict__[OWN]
    for base in own.__mro__:
        # Written for speed: each step of a loop without a callback calls this.
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
    """Make the metaclass of our classes, for own classes whose metaclass is ``kind``.

    A class of ours equals its own class, since frameworks look classes up among those that they
    know.
    """

    def __eq__(self: type, other: object) -> bool:
        return isinstance(other, type) and _own(self) is _own(other)

    def __hash__(self: type) -> int:
        return type.__hash__(_own(self))

    def mro(self: type) -> list[type]:
        """Order the front, the own class, and only then the class itself.

        MindSpore's compiler reads ``super()`` as ``super(type(self), self)``, also in methods of
        the own class.
        """
        order = type.mro(self)
        if OWN not in vars(self):  # a class that somebody has derived from ours
            return order
        first = vars(self)[FRONT], vars(self)[OWN], self
        return [*first, *(base for base in order if not any(base is one for one in first))]

    functions = {"__eq__": __eq__, "__hash__": __hash__, "mro": mro}
    return type(kind)(kind.__name__, (kind,), functions)


@cache
def _class_with(own: type, standing: _Standings) -> type:
    """Make a class like ``own``, with these standings in place of attributes.

    Each set of standings has one class, which never changes: a compiled graph knows objects by
    their class.
    """
    front = _front(own, {name: make() for name, make in standing})
    ours = {FRONT: front, _STANDING: standing, "__qualname__": own.__qualname__, **_as_in(own)}
    return cast(type, _equal_to_own(type(own))(own.__name__, (own, front), ours))


def _as_in(own: type) -> dict[str, Any]:
    return {OWN: own, "__module__": own.__module__, "__doc__": own.__doc__, "__slots__": ()}


def _front(own: Any, attributes: dict[str, Standing]) -> type:
    """Make the class that comes before ``own``. Its name is used by no other class: MindSpore's
    compiler finds the ``Some`` of ``super(Some, self)`` by its name.

    Its methods call those of ``own`` by name, because ``super()`` fails if another thread takes the
    class off the object while they run.
    """

    def __setattr__(self: Any, name: str, value: Any) -> None:
        if name == "__class__":
            with lock:
                return _give(self, _own(value), _standing(self))
        # Frameworks keep submodules in a registry of their own, which ignores descriptors.
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
            # Given by name, pickle would insist on the class that the object has now.
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
    """Return a part of an object's state, without the data of standings."""
    if isinstance(part, tuple):  # the state of some classes has more than attributes
        return tuple(map(_without_kept, part))
    if isinstance(part, dict) and KEPT in part:
        part = dict(part)
        del part[KEPT]
    return part
