"""Check that the models of a pipeline can be hooked: those of other libraries may be of any
class."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from unicb.backend import Around, Backend
from unicb.errors import UnsupportedPipelineError

#: Puts a hook on a model; returns a function that takes it away.
Hook = Callable[[Any, Around], Callable[[], None]]


def hooked(hook: Hook, model: Any, around: Around, aim: str) -> Callable[[], None]:
    """Call ``hook(model, around)``, and turn its errors into ones for users.

    Args:
        aim: what for, in messages.

    Raises:
        UnsupportedPipelineError: the model cannot be hooked.
    """
    try:
        return hook(model, around)
    except (UnsupportedPipelineError, AttributeError, TypeError) as error:
        raise UnsupportedPipelineError(f"cannot {aim}: {error}") from error


def check_hookable(backend: Backend, models: Iterable[Any], aim: str) -> None:
    """Raise UnsupportedPipelineError if one of these models cannot be hooked."""
    for model in models:
        hooked(backend.hook, model, _passing, aim)()


def _passing(call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return call(*args, **kwargs)
