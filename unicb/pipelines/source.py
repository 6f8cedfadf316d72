"""What the code of a class of pipeline says of its call: the one reader of such code.

What it means for guidance is in ``guidance/_inference.py``, for prompts in
``callbacks/_prompt_loop.py``.
"""

from __future__ import annotations

import dis
import inspect
from collections.abc import Callable, Iterator
from functools import cached_property
from types import CodeType
from typing import Any, TypeVar, cast
from weakref import WeakKeyDictionary, ref

from unicb.pipelines._written import (
    CALLBACK,
    WrittenCall,
    is_base_call,
    self_attribute,
    text_of,
)

__all__ = ["CALLBACK", "CallSource", "self_attribute", "text_of"]

T = TypeVar("T")

_FLAG = ("interrupt", "_interrupt")


class CallSource:
    """What the code of one class says of its ``__call__``. All of it is read when asked for, once.

    :meth:`of` has the one object of a class. Source text is read and parsed for :attr:`written`,
    which takes 20 ms on a large pipeline; nothing else does so where bytecode can answer.
    """

    def __init__(self, kind: type) -> None:
        self._kind = ref(kind)  # which is the key that this is kept by
        self._codes_of_calls = _codes_of_calls(kind)
        self._found: dict[Callable[..., Any], Any] = {}

    @staticmethod
    def of(kind: type) -> CallSource:
        """The source of a class; a new one, once somebody has given it another ``__call__``."""
        found = _sources.get(kind)
        if found is None or found._codes_of_calls != _codes_of_calls(kind):
            _sources[kind] = found = CallSource(kind)
        return found

    def once(self, read: Callable[..., T], *args: Any) -> T:
        """Return what ``read(*args)`` finds in this source; it is called the first time only."""
        if read not in self._found:
            self._found[read] = read(*args)
        return cast(T, self._found[read])

    @property
    def kind(self) -> type:
        """The class."""
        kind = self._kind()
        if kind is None:
            raise ReferenceError("the class is gone, and its code with it")
        return kind

    @property
    def owner(self) -> type | None:
        """The class, of this one and its bases, that defines its ``__call__``."""
        return next(_definers(self.kind), None)

    @property
    def calls(self) -> list[CallSource]:
        """The sources of the classes that define a ``__call__``; each may call the next."""
        return [CallSource.of(base) for base in _definers(self.kind)]

    @property
    def code(self) -> CodeType | None:
        """The bytecode of its ``__call__``, below any decorators."""
        return next(iter(self._codes_of_calls), None)

    @cached_property
    def codes(self) -> frozenset[CodeType]:
        """The bytecode of all methods of the class and its bases, below any decorators."""
        members = [member for base in self.kind.__mro__ for member in vars(base).values()]
        functions = [inspect.unwrap(member) for member in members if inspect.isfunction(member)]
        return frozenset(function.__code__ for function in functions)

    @cached_property
    def parameters(self) -> frozenset[str]:
        """Names of what it takes; of what its base takes, too, where it hands on ``**kwargs``."""
        taken: set[str] = set()
        kept: set[str] = set()
        for call in self.calls:
            taken |= call._own_parameters - kept
            if call._kept_keywords is None:
                break
            kept |= call._kept_keywords
        return frozenset(taken)

    @cached_property
    def names_callback(self) -> bool:
        """Whether a call in its code may have the callback as a keyword argument: the compiler
        keeps the names of keywords among the constants, in tuples, or alone where there are
        ``*args`` or ``**kwargs``."""
        return any(
            constant == CALLBACK or (isinstance(constant, tuple) and CALLBACK in constant)
            for code in _nested(self.code)
            for constant in code.co_consts
        )

    @cached_property
    def written(self) -> WrittenCall:
        """The text and the syntax tree of its ``__call__``."""
        owner = self.owner
        if owner is None or owner is self.kind:
            return WrittenCall(self.kind.__call__)
        return CallSource.of(owner).written

    @cached_property
    def reads_flag(self) -> bool:
        """Whether its loop reads the flag that stops it: a property may be there and not be."""
        loops = [code for code in _used(self.kind) if CALLBACK in code.co_varnames]
        return hasattr(self.kind, "interrupt") and any(map(_loads_flag, loops))

    @cached_property
    def hands_on(self) -> bool:
        """Whether it only hands its callback on, to a pipeline inside it."""
        for call in self.calls:
            targets = call.written.given_callback() if call.names_callback else []
            if not targets:
                kept = call._kept_keywords
                if CALLBACK in call._own_parameters or kept is None or CALLBACK in kept:
                    return False
                continue  # it is among its **kwargs, for the next
            if any(hasattr(self.kind, self_attribute(target) or "") for target in targets):
                return False  # to a method of its own
            if not any(map(is_base_call, targets)):
                return True
        return False

    @cached_property
    def _own_parameters(self) -> frozenset[str]:
        return frozenset(inspect.signature(self.kind.__call__).parameters)

    @cached_property
    def _kept_keywords(self) -> frozenset[str] | None:
        """Names that do not get through its ``**kwargs`` to the base's call; None if none does."""
        code = self.code
        if code is None or not code.co_flags & inspect.CO_VARKEYWORDS:
            return None
        names = {name for inner in _nested(code) for name in inner.co_names}
        return self.written.kept_keywords() if {"super", "__call__"} <= names else None


_sources: WeakKeyDictionary[type, CallSource] = WeakKeyDictionary()


def _definers(kind: type) -> Iterator[type]:
    return (base for base in kind.__mro__ if "__call__" in vars(base))


def _codes_of_calls(kind: type) -> list[CodeType | None]:
    return [_code_below(base.__call__) for base in _definers(kind)]


def _code_below(function: Any) -> CodeType | None:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return code if isinstance(code, CodeType) else None


def _nested(code: CodeType | None) -> Iterator[CodeType]:
    """The code, and that of the functions in it."""
    if code is not None:
        yield code
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                yield from _nested(constant)


def _used(kind: type) -> Iterator[CodeType]:
    """The code of the class's methods, below any decorators; of those of its bases that it
    overrides, where its own calls them."""
    for name in dir(kind):
        for base in kind.__mro__:
            if inspect.isfunction(method := vars(base).get(name)):
                code = inspect.unwrap(method).__code__
                yield code
                if not {"super", name} & {*code.co_names}:
                    break


def _loads_flag(code: CodeType) -> bool:
    if not {*code.co_names} & {*_FLAG}:
        return False
    return any(
        step.opname.startswith("LOAD_") and step.argval in _FLAG
        for step in dis.get_instructions(code)
    )
