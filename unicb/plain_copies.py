"""Copy a hooked module without its hooks. For backends."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

_ATTRIBUTE = "__reduce_ex__"  # copy.deepcopy and pickle look for it on the instance first


def make_plain_copies(
    module: Any, lock: AbstractContextManager[Any], without_hooks: Callable[[dict[str, Any]], None]
) -> Callable[[], None]:
    """Make ``copy.deepcopy`` and ``pickle`` copy ``module`` without its hooks.

    Args:
        module: the hooked module. Its class's own ``__reduce_ex__`` makes the copies.
        lock: held while the module's attributes are read.
        without_hooks: called with a shallow copy of the module's attributes, from which it removes
            the hooks.

    Returns:
        A function that undoes this. Idempotent.
    """

    def reduce(protocol: Any) -> Any:
        kind: Any = type(module)
        with lock:
            reduced = kind.__reduce_ex__(module, protocol)
            return tuple(map(plain, reduced)) if isinstance(reduced, tuple) else reduced

    def plain(part: Any) -> Any:
        if isinstance(part, tuple):  # the state of some classes has more than attributes
            return tuple(map(plain, part))
        if not isinstance(part, dict) or part.get(_ATTRIBUTE) is not reduce:
            return part
        attributes = {name: value for name, value in part.items() if value is not reduce}
        without_hooks(attributes)
        return attributes

    vars(module)[_ATTRIBUTE] = reduce

    def end() -> None:
        if vars(module).get(_ATTRIBUTE) is reduce:
            del vars(module)[_ATTRIBUTE]

    return end
