"""Read one ``__call__``: its text, its syntax tree, and what follows from these alone."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from functools import cached_property, lru_cache
from types import CodeType
from typing import Any, NamedTuple

CALLBACK = "callback_on_step_end"
#: The ``__call__`` of the next class in the method resolution order that defines one.
BASE = "super()"


def text_of(function: Any) -> str:
    """Return the source text of a function, below any decorators.

    Raises:
        OSError, TypeError: the source cannot be read.
    """
    return textwrap.dedent(inspect.getsource(inspect.unwrap(function)))


@lru_cache(maxsize=64)
def loop_around(code: CodeType, line: int) -> ast.For | ast.While | None:
    """Return the innermost loop, in a function's or a script's code, that contains this line of its
    file; None if there is none, or the code cannot be read."""
    try:
        tree = ast.parse(_text_of(code))
    except (OSError, TypeError, SyntaxError):
        return None
    line -= 0 if code.co_name == "<module>" else code.co_firstlineno - 1
    loops = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.For | ast.While)
        and node.lineno <= line <= (node.end_lineno or node.lineno)
    ]
    return max(loops, key=lambda node: node.lineno, default=None)


def _text_of(code: CodeType) -> str:
    if code.co_name == "<module>":  # getsource would give only the first statement
        return "".join(inspect.findsource(code)[0])
    return textwrap.dedent(inspect.getsource(code))


def self_attribute(node: ast.AST) -> str | None:
    """Return the name of an attribute of ``self``; None for anything else."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return node.attr if node.value.id == "self" else None
    return None


def is_base_call(node: ast.AST) -> bool:
    """Return whether the node is ``super().__call__``."""
    of = _called_of(node)
    return isinstance(of, ast.Call) and _is_name(of.func, "super")


def _called_of(node: ast.AST) -> ast.expr | None:
    """Return the x of ``x.__call__``; None for anything else."""
    return node.value if isinstance(node, ast.Attribute) and node.attr == "__call__" else None


class HandedOn(NamedTuple):
    """``HandedOn`` says to which call a ``__call__`` passes its ``**kwargs`` on.

    Attributes:
        to: :data:`BASE`; or the name of a function, or of a class whose ``__call__`` is called; or
            ``"self."`` and the name of an attribute that holds a class.
        kept: names of arguments that are not passed on.
    """

    to: str
    kept: frozenset[str]


class WrittenCall:
    """``WrittenCall`` is the source of one ``__call__``, read and parsed once.

    Attributes:
        text: the source text; empty if it cannot be read.
        tree: the syntax tree; None if the text cannot be read or parsed.
        unreadable: the error with which reading the text failed; None if it was read.
    """

    def __init__(self, function: Any) -> None:
        self.text = ""
        self.tree: ast.Module | None = None
        self.unreadable: Exception | None = None
        try:
            self.text = text_of(function)
            self.tree = ast.parse(self.text)
        except (OSError, TypeError, SyntaxError) as error:
            # A new error without a traceback, which would keep frames and their variables alive.
            self.unreadable = type(error)(*error.args)

    @cached_property
    def loop(self) -> ast.For | ast.While | None:
        """Return the innermost loop that calls the callback."""
        loops = [
            node
            for node in self._nodes
            if isinstance(node, ast.For | ast.While) and any(map(_is_callback_call, ast.walk(node)))
        ]
        return loops[-1] if loops else None

    def given_callback(self) -> list[ast.Call]:
        """Return the calls that get the callback as a keyword argument; none if this ``__call__``
        calls it itself."""
        if any(map(_is_callback_call, self._nodes)):
            return []
        return [
            call
            for call in self._calls
            if any(_is_name(word.value, CALLBACK) for word in call.keywords)
        ]

    def handed_on(self) -> HandedOn | None:
        """Return where its ``**kwargs`` go; None if they are not passed on, or a changed dict
        is."""
        function = self.tree.body[0] if self.tree is not None else None
        if not isinstance(function, ast.FunctionDef) or function.args.kwarg is None:
            return None
        kwargs = function.args.kwarg.arg
        owner = function.args.args[0].arg if function.args.args else "self"
        calls: dict[str, list[ast.Call]] = {}
        for call in self._calls:
            to = receiver(call.func, call.args, owner)
            if to and any(not word.arg and _is_name(word.value, kwargs) for word in call.keywords):
                calls.setdefault(to, []).append(call)
        to = BASE if BASE in calls else next(iter(calls), "")
        if not to or (to != BASE and len(calls) > 1) or self._is_replaced(kwargs):
            return None
        given = {word.arg for call in calls[to] for word in call.keywords if word.arg}
        # A name taken out of kwargs may be passed on by name; one left in must not be passed twice.
        return HandedOn(to, frozenset(given ^ set(self._taken_out(kwargs))))

    def _is_replaced(self, kwargs: str) -> bool:
        """Return whether the variable ``kwargs`` may hold another dict, with fewer entries, by the
        time that it is passed on."""
        stores = sum(
            isinstance(node, ast.Name) and node.id == kwargs and isinstance(node.ctx, ast.Store)
            for node in self._nodes
        )
        with_all = sum(
            isinstance(node, ast.Assign)
            and len(node.targets) == 1
            and _is_name(node.targets[0], kwargs)
            and _has_all_of(node.value, kwargs)
            for node in self._nodes
        )
        return stores > with_all

    def _taken_out(self, kwargs: str) -> Iterator[str]:
        """Yield the names of entries removed from the dict ``kwargs`` by ``pop`` or ``del``."""
        for node in self._nodes:
            of: ast.expr | None = None
            key: ast.expr | None = None
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
                of, key = node.func.value if node.func.attr == "pop" else None, node.args[0]
            elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Del):
                of, key = node.value, node.slice
            if of is not None and _is_name(of, kwargs) and isinstance(key, ast.Constant):
                yield str(key.value)

    @property
    def _nodes(self) -> Iterator[ast.AST]:
        return iter(()) if self.tree is None else ast.walk(self.tree)

    @property
    def _calls(self) -> Iterator[ast.Call]:
        return (node for node in self._nodes if isinstance(node, ast.Call))


def _is_name(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def receiver(called: ast.expr, args: list[ast.expr], owner: str = "self") -> str:
    """Return which call this is, in the form of :attr:`HandedOn.to`; empty if it is none of these.

    Args:
        called: the expression that is called.
        args: its positional arguments.
        owner: the name of ``self`` in this function.
    """
    if is_base_call(called):
        return BASE
    if not args or not _is_name(args[0], owner):
        return ""
    of = _called_of(called)
    if isinstance(of, ast.Attribute):
        owners = (owner, f"type({owner})", f"{owner}.__class__")
        return f"self.{of.attr}" if ast.unparse(of.value) in owners else ""
    name = called if of is None else of
    return name.id if isinstance(name, ast.Name) else ""


def _has_all_of(node: ast.AST, kwargs: str) -> bool:
    """Return whether the node is a dict that contains everything in ``kwargs``, and maybe more."""
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        return any(key is None and _is_name(value, kwargs) for key, value in pairs)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _is_name(node.left, kwargs) or _is_name(node.right, kwargs)
    if not isinstance(node, ast.Call):
        return False
    if isinstance(node.func, ast.Attribute):
        return node.func.attr == "copy" and _is_name(node.func.value, kwargs)
    given = (*node.args, *(word.value for word in node.keywords if word.arg is None))
    return _is_name(node.func, "dict") and any(_is_name(value, kwargs) for value in given)


def _is_callback_call(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and _is_name(node.func, CALLBACK)
