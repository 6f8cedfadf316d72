"""Find denoisers whose call somebody has replaced, and check that a cut works with the replacement.

The frameworks' own replacements (registries of hooks, offloading, compilers) are known to compute
what the model computes, and to keep nothing. Any other replacement may keep rows of earlier calls,
or count calls; so it is verified in the first step after a cut.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from unicb.errors import UnicbError, UnsupportedPipelineError
from unicb.guidance._tree import leaves
from unicb.method_hooks import MethodHooks

if TYPE_CHECKING:
    from unicb.guidance._models import Models

#: Names of the method that a module's call runs.
_CALLS = ("forward", "construct")
#: Name of the attribute in which accelerate keeps the call that it has replaced.
_KEPT = "_old_forward"
#: Attributes in which decorators, compilers and partial calls keep the function that they call.
_BELOW = ("__wrapped__", "__func__", "func", "_torchdynamo_orig_callable")
_FRAMEWORKS = frozenset(("torch", "accelerate", "diffusers", "mindspore", "mindone", "unicb"))
#: The largest relative difference between two outputs for equal arguments, by rounding.
_SAME = 1e-3


def put_in_place(model: Any) -> Iterator[Any]:
    """Yield what has replaced a model's call, and what that calls in turn, as far as can be seen:
    functions and callable objects."""
    found: list[Any] = []
    for part in (model, getattr(model, "_orig_mod", None)):  # the model inside a compiled one
        own: Mapping[str, Any] = getattr(part, "__dict__", {})
        found += [own[name] for name in (*_CALLS, _KEPT) if own.get(name) is not None]
        registry = own.get("_diffusers_hook")
        for ref in getattr(registry, "_fn_refs", ()):
            found += [value for value in vars(ref).values() if callable(value)]
        found += getattr(registry, "hooks", {}).values()
    seen: set[int] = set()
    while found:
        one = found.pop()
        if id(one) not in seen:
            seen.add(id(one))
            yield one
            found += [getattr(one, name) for name in _BELOW if callable(getattr(one, name, None))]
            found += [one.method] if isinstance(one, MethodHooks) else []


def package_of(call: Any) -> str:
    """Return the top-level package that the call's code comes from, whatever decorators claim."""
    names = getattr(call, "__globals__", None)
    module = type(call).__module__ if names is None else names.get("__name__", "")
    return str(module).partition(".")[0]


def replaced_by(model: Any) -> str | None:
    """Say in words who has replaced a model's call; None if nobody has, or only a framework."""
    calls = (*_foreign_calls(type(model)), *_foreign_calls_on(model))
    return next((_named(call) for call in calls if not _is_frameworks(call)), None)


def _foreign_calls(kind: type) -> Iterator[Any]:
    """Yield the call methods of a class and its bases that come from another package than the
    class."""
    for base, call in _own_calls(kind):
        if package_of(inspect.unwrap(call)) != base.__module__.partition(".")[0]:
            yield inspect.unwrap(call)


def _foreign_calls_on(model: Any) -> Iterator[Any]:
    """Yield the items of :func:`put_in_place` that are not from the model's own class."""
    calls = [call for _, call in _own_calls(type(model))]
    own = {id(call) for call in (*calls, *map(inspect.unwrap, calls))}
    for call in put_in_place(model):
        # A method or a partial is followed by the function that it calls.
        if not inspect.ismethod(call) and not isinstance(call, partial) and id(call) not in own:
            yield call


def _own_calls(kind: type) -> Iterator[tuple[type, Any]]:
    for base in kind.__mro__:
        for name in _CALLS:
            if inspect.isfunction(call := vars(base).get(name)):
                yield base, call


def _is_frameworks(call: Any) -> bool:
    package = package_of(call)
    return package in _FRAMEWORKS or package.startswith("unicb_") or inspect.isbuiltin(call)


def _named(call: Any) -> str:
    kind = call if hasattr(call, "__qualname__") else type(call)
    names = getattr(call, "__globals__", {"__name__": kind.__module__})
    return f"{names.get('__name__', '')}.{kind.__qualname__}"


class FirstStep:
    """Verify the calls of a run's denoisers in the first step after a cut, if somebody has replaced
    them."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self._by = {name: by for name, model in models.denoisers() if (by := replaced_by(model))}

    @property
    def verifies(self) -> bool:
        """Return whether calls are still to be verified."""
        return bool(self._by)

    def over(self) -> None:
        """Note that the step has ended."""
        self._by.clear()

    def call(
        self,
        name: str,
        call: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Make a denoiser's call without the rows that are cut, and verify the number of rows
        returned."""
        if name not in self._by:
            return call(*args, **kwargs)
        try:
            return call(*args, **kwargs)
        except (UnicbError, MemoryError):
            raise
        except Exception as error:
            found = f"failed on the rows that are left ({type(error).__name__}: {error})"
            raise self._refused(name, found) from error

    def check_same(self, name: str, out: Any, again: Callable[[], Any]) -> None:
        """Repeat the denoiser's call that has returned ``out``, and compare: a replacement that
        tells the halves apart by counting takes the repeated call for the other half's, and answers
        with other rows."""
        if name not in self._by:
            return
        is_tensor, to_numpy = self._models.backend.is_tensor, self._models.backend.ops.to_numpy
        after, before = (list(leaves(x, is_tensor)) for x in (again(), out))
        if len(after) != len(before) or not all(
            _is_same(to_numpy(x), to_numpy(y)) for x, y in zip(before, after, strict=True)
        ):
            raise self._refused(name, "answered the same call twice with something else")

    def _refused(self, name: str, found: str) -> UnsupportedPipelineError:
        return UnsupportedPipelineError(
            f"cannot cut guidance on {self._models.name}: the call of its {name} was replaced by "
            f"{self._by[name]}, and {found}, as what keeps rows of earlier calls or counts them "
            "does; switch that off, or leave out the callback that cuts guidance. The pipeline has "
            "been put back as it was"
        )


def _is_same(before: Any, after: Any) -> bool:
    if before.shape != after.shape:
        return False
    if before.dtype.kind != "f":
        return bool(np.array_equal(before, after))
    if np.array_equal(before, after, equal_nan=True):
        return True
    wide, other = before.astype(np.float64), after.astype(np.float64)
    return bool(np.linalg.norm(wide - other) <= _SAME * np.linalg.norm(wide))
