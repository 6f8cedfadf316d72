"""Check that the models of a pipeline can be hooked: models of other libraries may be of any
class."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from unicb.backend import Around, Backend
from unicb.errors import UnsupportedPipelineError

#: A function that puts a hook on a model, and returns a function that removes the hook.
Hook = Callable[[Any, Around], Callable[[], None]]


def hooked(hook: Hook, model: Any, around: Around, aim: str) -> Callable[[], None]:
    """Call ``hook(model, around)``, and turn its errors into UnsupportedPipelineError.

    Args:
        aim: what the hook is for, in messages, such as "cut guidance".

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
