"""Read the code of a pipeline class's ``__call__``; no other module reads such code.

``guidance/_inference.py`` interprets it for guidance, ``callbacks/_prompt_loop.py`` for prompts.
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
    BASE,
    CALLBACK,
    HandedOn,
    WrittenCall,
    receiver,
    self_attribute,
    text_of,
)

__all__ = ["CALLBACK", "CallSource", "self_attribute", "text_of"]

T = TypeVar("T")

_FLAG = ("interrupt", "_interrupt")


class CallSource:
    """``CallSource`` reads the code of one class's ``__call__``. Everything is read once, when it
    is first asked for.

    :meth:`of` returns the one object for a class. :attr:`written` reads and parses the source text,
    which takes 20 ms on a large pipeline; the rest uses bytecode where possible.
    """

    def __init__(self, kind: type) -> None:
        self._kind = ref(kind)  # weak: the class is the key under which this object is kept
        self._codes_of_calls = _codes_of_calls(kind)
        self._found: dict[Callable[..., Any], Any] = {}

    @staticmethod
    def of(kind: type) -> CallSource:
        """Return the source of a class; a new one after the class's ``__call__`` was replaced."""
        found = _sources.get(kind)
        if found is None or found._codes_of_calls != _codes_of_calls(kind):
            _sources[kind] = found = CallSource(kind)
        return found

    def once(self, read: Callable[..., T], *args: Any) -> T:
        """Return the result of ``read(*args)``, which is called only the first time."""
        if read not in self._found:
            self._found[read] = read(*args)
        return cast(T, self._found[read])

    @property
    def kind(self) -> type:
        """Return the class."""
        kind = self._kind()
        if kind is None:
            raise ReferenceError("the class is gone, and its code with it")
        return kind

    @property
    def owner(self) -> type | None:
        """Return the class or base class that defines the ``__call__``."""
        return next(_definers(self.kind), None)

    @property
    def calls(self) -> list[CallSource]:
        """Return the sources of the classes that define a ``__call__``; each may call the next."""
        kind, found = self.kind, list[CallSource]()
        left = list(_definers(kind))
        while left and all(left[0] is not source.kind for source in found):
            found.append(CallSource.of(left[0]))
            after = found[-1].receiver_in(kind)
            left = left[1:] if after is None else _definers_from(after, kind)
        return found

    def receiver_in(self, kind: type) -> Any:
        """Return the class or function to which this ``__call__`` passes its keywords on, in
        objects of ``kind``; None if that is the base class's, or not known."""
        if self._handed_on is None or self._handed_on.to == BASE:
            return None
        return _named(self.kind.__call__, kind, self._handed_on.to)

    @property
    def code(self) -> CodeType | None:
        """Return the bytecode of its ``__call__``, below any decorators."""
        return next(iter(self._codes_of_calls), None)

    @cached_property
    def codes(self) -> frozenset[CodeType]:
        """Return the bytecode of all methods of the class and its bases, below any decorators."""
        members = [member for base in self.kind.__mro__ for member in vars(base).values()]
        functions = [inspect.unwrap(member) for member in members if inspect.isfunction(member)]
        return frozenset((*(function.__code__ for function in functions), *self._codes_beside))

    @cached_property
    def local_names(self) -> frozenset[str]:
        """Return the names of its methods' local variables, if the loop is in one of these methods;
        else none."""
        if not any(CALLBACK in code.co_varnames for code in self.codes):
            return frozenset()
        every = ((*code.co_varnames, *code.co_cellvars) for code in self.codes)
        return frozenset(name for names in every for name in names)

    @cached_property
    def parameters(self) -> frozenset[str]:
        """Return the names of the call's parameters, and of those of the call to which it passes
        ``**kwargs`` on."""
        taken: set[str] = set()
        kept: set[str] = set()
        for call in self.calls:
            taken |= call._own_parameters - kept
            if call._handed_on is None:
                break
            kept |= call._handed_on.kept
            receives = call.receiver_in(self.kind)
            if not isinstance(receives, type) and call._handed_on.to != BASE:
                taken |= _parameters_of(receives) - kept  # a function, or not known
                break
        return frozenset(taken)

    @property
    def takes_any_keyword(self) -> bool:
        """Return whether the call takes ``**kwargs``."""
        return self.code is not None and bool(self.code.co_flags & inspect.CO_VARKEYWORDS)

    @cached_property
    def names_callback(self) -> bool:
        """Return whether a call in its code may have the callback as a keyword argument: the
        compiler keeps the names of keywords among the constants, in tuples, or alone where there
        are ``*args`` or ``**kwargs``."""
        return any(
            constant == CALLBACK or (isinstance(constant, tuple) and CALLBACK in constant)
            for code in _nested(self.code)
            for constant in code.co_consts
        )

    @cached_property
    def written(self) -> WrittenCall:
        """Return the text and the syntax tree of its ``__call__``."""
        owner = self.owner
        if owner is None or owner is self.kind:
            return WrittenCall(self.kind.__call__)
        return CallSource.of(owner).written

    @cached_property
    def reads_flag(self) -> bool:
        """Return whether the loop reads the interrupt flag. (A class may have the property without
        reading it.)"""
        used = (*_used(self.kind), *self._codes_beside)
        loops = [code for code in used if CALLBACK in code.co_varnames]
        return hasattr(self.kind, "interrupt") and any(map(_loads_flag, loops))

    @cached_property
    def hands_on(self) -> bool:
        """Return whether the call only passes its callback on to a pipeline inside it."""
        for call in self.calls:
            targets = call.written.given_callback() if call.names_callback else []
            if not targets:
                handed_on = call._handed_on
                if handed_on is None or CALLBACK in {*call._own_parameters, *handed_on.kept}:
                    return False
                continue  # passed on in **kwargs to the next class
            if any(hasattr(self.kind, self_attribute(target.func) or "") for target in targets):
                return False  # passed to a method of its own
            if not any(receiver(target.func, target.args) for target in targets):
                return True
        return False

    @cached_property
    def _codes_beside(self) -> list[CodeType]:
        """List the bytecode of other classes' calls that its own code names, such as the
        framework's class that a runtime's class replaces."""
        named = (call.receiver_in(self.kind) for call in self.calls)
        called = (one.__call__ if isinstance(one, type) else one for one in named)
        return [code for one in called if (code := _code_below(one)) is not None]

    @cached_property
    def _own_parameters(self) -> frozenset[str]:
        return _parameters_of(self.kind.__call__)

    @cached_property
    def _handed_on(self) -> HandedOn | None:
        """Return where its ``**kwargs`` go; None if they are not passed on, or that is not
        known."""
        if not self.takes_any_keyword:
            return None
        names = {name for inner in _nested(self.code) for name in inner.co_names}
        if "__call__" not in names and CALLBACK in self._own_parameters:
            return None
        if self.written.tree is None and {"super", "__call__"} <= names:
            return HandedOn(BASE, frozenset())  # unreadable, as in a console: assume the base class
        return self.written.handed_on()


_sources: WeakKeyDictionary[type, CallSource] = WeakKeyDictionary()


def _definers(kind: type) -> Iterator[type]:
    return (base for base in kind.__mro__ if "__call__" in vars(base))


def _definers_from(after: Any, kind: type) -> list[type]:
    """List the classes that define a ``__call__``, in the resolution order of ``kind`` from the
    class that ``after.__call__`` is found on; none if ``after`` is no class."""
    definers = list(_definers(after)) if isinstance(after, type) else []
    own = list(_definers(kind))
    return own[own.index(definers[0]) :] if {*definers[:1]} & {*own} else definers


def _named(call: Any, kind: type, name: str) -> Any:
    """Return the object that a name in :class:`HandedOn` refers to in the code of ``call``; None if
    not known."""
    own_name = name.removeprefix("self.")
    if own_name != name:
        found = getattr(kind, own_name, None)
        return found if isinstance(found, type) else None
    function = inspect.unwrap(call)
    found = function.__globals__.get(name)
    for free, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        if free == name:
            found = cell.cell_contents
    return found if isinstance(found, type) or inspect.isfunction(found) else None


def _parameters_of(function: Any) -> frozenset[str]:
    try:
        return frozenset(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # no function, or not written in Python
        return frozenset()


def _codes_of_calls(kind: type) -> list[CodeType | None]:
    return [_code_below(base.__call__) for base in _definers(kind)]


def _code_below(function: Any) -> CodeType | None:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return code if isinstance(code, CodeType) else None


def _nested(code: CodeType | None) -> Iterator[CodeType]:
    """Yield the code, and the code of the functions inside it."""
    if code is not None:
        yield code
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                yield from _nested(constant)


def _used(kind: type) -> Iterator[CodeType]:
    """Yield the code of the class's methods, below any decorators, and of overridden base methods
    that they call."""
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
