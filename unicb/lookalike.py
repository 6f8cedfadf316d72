"""Classes made from an object's own class, that pass for it: the object behaves otherwise, and is
copied and pickled as if it did not."""

from __future__ import annotations

import copyreg
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any, cast

_CLASS = object.__dict__["__class__"]
#: In a class of ours: the class that it was made from.
_OWN = "_unicb_own_class"


def give_class(obj: Any, kind: type) -> None:
    """Have the object be of this class, whatever its own says of the attribute ``__class__``.

    Raises:
        TypeError: Python cannot, as with objects of built-in classes.
    """
    _CLASS.__set__(obj, kind)


def own(kind: type) -> type:
    """The class that a class of ours was made from, whose own it is; any other as it is."""
    while _OWN in vars(kind):
        kind = vars(kind)[_OWN]
    return kind


def lookalike(own_class: type, attributes: Mapping[str, Any]) -> type:
    """A class with these attributes that is equal to ``own_class`` otherwise.

    Raises:
        TypeError: no class can be made from that one.
    """

    def __reduce_ex__(self: Any, protocol: Any) -> Any:
        reduced = super(kind, self).__reduce_ex__(protocol)
        if isinstance(reduced, str):
            return reduced
        make, arguments, *state = reduced
        as_own = [own_class if part is kind else part for part in (make, *arguments)]
        if make in (copyreg.__newobj__, copyreg.__newobj_ex__):  # type: ignore[attr-defined]
            # Called by name, pickle would insist on the object's class now.
            as_own[:2] = [partial(make, own_class)]
        return as_own[0], tuple(as_own[1:]), *state

    def copier(name: str) -> Callable[..., Any]:
        def copied(self: Any, *args: Any) -> Any:
            made = getattr(super(kind, self), name)(*args)
            if type(made) is kind and made is not self:
                give_class(made, own_class)
            return made

        return copied

    names = ("__copy__", "__deepcopy__")
    copiers = {name: copier(name) for name in names if hasattr(own_class, name)}

    kind: Any = _equal_to_own(type(own_class))(
        own_class.__name__,
        (own_class,),
        {
            **attributes,
            **copiers,
            _OWN: own_class,
            "__reduce_ex__": __reduce_ex__,
            "__slots__": (),
            "__module__": own_class.__module__,
            "__qualname__": own_class.__qualname__,
            "__doc__": own_class.__doc__,
        },
    )
    return cast(type, kind)


@cache
def _equal_to_own(kind: type) -> type:
    """The type of classes of ours, whose own classes are of type ``kind``.

    Frameworks look whether a class is among some that they know, and would not find ours.
    """

    def __eq__(self: type, other: object) -> bool:
        return isinstance(other, type) and own(self) is own(other)

    def __hash__(self: type) -> int:
        return type.__hash__(own(self))

    return type(kind)(kind.__name__, (kind,), {"__eq__": __eq__, "__hash__": __hash__})
