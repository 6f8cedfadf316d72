"""Copy a module that is hooked as if it were not. For backends."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

_ATTRIBUTE = "__reduce_ex__"  # copy.deepcopy and pickle ask the instance for it first


def make_plain_copies(
    module: Any, lock: AbstractContextManager[Any], without_hooks: Callable[[dict[str, Any]], None]
) -> Callable[[], None]:
    """Have ``copy.deepcopy`` and ``pickle`` copy ``module`` as it would be without its hooks.

    Args:
        module: what is hooked. The copies are made as its class says, from other attributes.
        lock: is held while these are looked up.
        without_hooks: changes a dictionary of the module's attributes, which is a shallow copy,
            to what it would be without hooks.

    Returns:
        A function that ends it. Idempotent.
    """

    def reduce(protocol: Any) -> Any:
        kind: Any = type(module)
        with lock:
            reduced = kind.__reduce_ex__(module, protocol)
            return tuple(map(plain, reduced)) if isinstance(reduced, tuple) else reduced

    def plain(part: Any) -> Any:
        if isinstance(part, tuple):  # some classes have more than attributes in their state
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
