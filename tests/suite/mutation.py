"""How to break one thing in the reference backend, its pipeline or unicb itself."""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest

from unicb.testing import Harness
from unicb_numpy.harness import NumpyHarness
from unicb_numpy.ops import StrictTensor
from unicb_numpy.pipelines import ToyPipeline

#: Set where every mutant is held against every check, not only against those that must notice it.
MATRIX = "UNICB_TESTS_MATRIX"


@dataclass(frozen=True)
class Patch:
    """Put ``broken(what is there)`` in place of ``owner.attribute``."""

    owner: Any
    attribute: str
    broken: Callable[[Any], Any]


@dataclass(frozen=True)
class Mutant:
    """One planted fault.

    Attributes:
        name: what it is called in the table of results.
        fault: what is wrong, in a line.
        kills: names of checks that must fail; more may.
        patch: how the fault is planted, where not in the harness.
        harness: makes the harness to run the suite with.
        error: what the checks may fail with instead of an assertion. A fault that should show as
            a wrong result must not pass for found because the mutant itself is badly written.
    """

    name: str
    fault: str
    kills: tuple[str, ...]
    patch: Patch | None = None
    harness: Callable[[], Harness] = NumpyHarness
    error: type[BaseException] | None = None

    @contextmanager
    def planted(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as monkeypatch:
            if patch := self.patch:
                original = inspect.getattr_static(patch.owner, patch.attribute)
                monkeypatch.setattr(patch.owner, patch.attribute, patch.broken(original))
            yield


def mutant(
    name: str,
    fault: str,
    kills: str,
    owner: Any = None,
    attribute: str = "",
    broken: Callable[[Any], Any] | None = None,
    *,
    harness: Callable[[], Harness] = NumpyHarness,
    error: type[BaseException] | None = None,
) -> Mutant:
    """A mutant with one patch or none. ``kills``: names of checks, without ``test_``."""
    checks = tuple(f"test_{check}" for check in kills.split())
    patch = None if broken is None else Patch(owner, attribute, broken)
    return Mutant(name, fault, checks, patch, harness, error)


def checks_of(suite: type) -> list[str]:
    """Names of the checks in a suite or a group, in the order in which they are written."""
    names = [name for group in suite.__mro__ for name in vars(group) if name.startswith("test_")]
    return list(dict.fromkeys(names))


def after(change: Callable[..., Any]) -> Callable[[Any], Any]:
    """A function whose result goes through ``change(result, *arguments)``."""

    def broken(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **kwargs: change(function(*args, **kwargs), *args, **kwargs)

    return broken


def instead(function: Callable[..., Any]) -> Callable[[Any], Any]:
    """Another function altogether."""
    return lambda _: function


def onto(change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A function whose result is a tensor, with ``change`` made to the array in it."""
    return after(lambda tensor, *_: StrictTensor(change(tensor.data)))


def value(change: Callable[[Any, Any], Any]) -> Callable[[property], property]:
    """A property that reads as ``change(self, true value)``."""

    def broken(true: property) -> property:
        assert true.fget is not None
        get = true.fget
        return property(lambda self: change(self, get(self)), true.fset)

    return broken


def edited(function: Callable[..., Any], *changes: tuple[str, str]) -> Callable[..., Any]:
    """The function compiled anew, with pieces of its source replaced."""
    source = textwrap.dedent(inspect.getsource(function))
    for old, new in changes:
        if source.count(old) != 1:
            raise ValueError(f"{function.__qualname__} has {source.count(old)} times: {old}")
        source = source.replace(old, new)
    namespace = dict(vars(sys.modules[function.__module__]))
    exec(compile(source, f"<edited {function.__qualname__}>", "exec"), namespace)
    made: Callable[..., Any] = namespace[function.__name__]
    return made


def loop(*changes: tuple[str, str], **members: Any) -> Callable[[], Harness]:
    """A harness whose toy pipeline has its ``__call__`` edited, and some members replaced."""

    class EditedLoop(NumpyHarness):
        kind = type(
            "ToyPipeline",
            (ToyPipeline,),
            {**members, "__call__": edited(ToyPipeline.__call__, *changes)},
        )

        def build(self, kind: str) -> ToyPipeline:
            made: ToyPipeline = self.kind()
            return made

    return EditedLoop


class MoreKinds(NumpyHarness):
    """The reference, with kinds of pipeline for which checks take another way."""

    kinds = ("text2img", "unstoppable", "one prompt", "scale of its own")
    single_prompt_kinds = ("one prompt",)

    def build(self, kind: str) -> Any:
        if kind == "unstoppable":
            return _unstoppable()()
        if kind == "scale of its own":
            return _copies_scale()()
        return _OnePrompt() if kind == "one prompt" else ToyPipeline()


def _unstoppable() -> Any:
    """ToyPipeline without its interrupt flag. No subclass of it, as that would have the flag."""
    ours = {"__dict__", "__weakref__", "interrupt"}
    members = {name: member for name, member in vars(ToyPipeline).items() if name not in ours}
    goes_on = edited(ToyPipeline.__call__, ("if self.interrupt:", "if False:"))
    return type("ToyPipeline", (), {**members, "__call__": goes_on})


def _copies_scale() -> Any:
    """ToyPipeline that does not look at its guidance scale again in its loop."""
    facts = replace(ToyPipeline.unicb_facts, guidance_scale="local", scale_names=())
    local = edited(ToyPipeline.__call__, ("self.guidance_scale * (", "guidance_scale * ("))
    return type("ToyPipeline", (ToyPipeline,), {"__call__": local, "unicb_facts": facts})


class _OnePrompt(ToyPipeline):
    def encode_prompt(self, prompts: Any) -> Any:
        if len(set(prompts)) > 1:
            raise ValueError("one prompt, please")
        return super().encode_prompt(prompts)
