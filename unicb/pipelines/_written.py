"""One ``__call__`` as it is written: its text, its syntax tree, and what is found in that alone."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from functools import cached_property
from typing import Any

CALLBACK = "callback_on_step_end"


def text_of(function: Any) -> str:
    """The source text of a function, below any decorators.

    Raises:
        OSError, TypeError: it cannot be read.
    """
    return textwrap.dedent(inspect.getsource(inspect.unwrap(function)))


def self_attribute(node: ast.AST) -> str | None:
    """The name of an attribute of ``self``; None for anything else."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return node.attr if node.value.id == "self" else None
    return None


def is_base_call(node: ast.AST) -> bool:
    """Whether it is ``super().__call__``."""
    of = node.value if isinstance(node, ast.Attribute) and node.attr == "__call__" else None
    return isinstance(of, ast.Call) and _is_name(of.func, "super")


class WrittenCall:
    """The source of one ``__call__``, read and parsed once.

    Attributes:
        text: empty if it cannot be read.
        tree: None if it cannot be read, or parsed.
        unreadable: why not.
    """

    def __init__(self, function: Any) -> None:
        self.text = ""
        self.tree: ast.Module | None = None
        self.unreadable: Exception | None = None
        try:
            self.text = text_of(function)
            self.tree = ast.parse(self.text)
        except (OSError, TypeError, SyntaxError) as error:
            # Another one, without a traceback: that would keep frames, and what is in them.
            self.unreadable = type(error)(*error.args)

    @cached_property
    def loop(self) -> ast.For | ast.While | None:
        """The innermost loop that calls the callback."""
        loops = [
            node
            for node in self._nodes
            if isinstance(node, ast.For | ast.While) and any(map(_is_callback_call, ast.walk(node)))
        ]
        return loops[-1] if loops else None

    def given_callback(self) -> list[ast.expr]:
        """What it calls with its callback as a keyword argument; none if it calls that itself."""
        if any(map(_is_callback_call, self._nodes)):
            return []
        return [
            call.func
            for call in self._calls
            if any(_is_name(word.value, CALLBACK) for word in call.keywords)
        ]

    def kept_keywords(self) -> frozenset[str] | None:
        """Names that do not get through its ``**kwargs`` to the base's call; None if none does."""
        function = self.tree.body[0] if self.tree is not None else None
        if not isinstance(function, ast.FunctionDef) or function.args.kwarg is None:
            return None
        kwargs = function.args.kwarg.arg
        base_calls = [
            call
            for call in self._calls
            if is_base_call(call.func)
            and any(word.arg is None and _is_name(word.value, kwargs) for word in call.keywords)
        ]
        is_another_by_then = any(
            isinstance(node, ast.Name) and node.id == kwargs and isinstance(node.ctx, ast.Store)
            for node in self._nodes
        )
        if not base_calls or is_another_by_then:
            return None
        given = {word.arg for call in base_calls for word in call.keywords if word.arg}
        # Whoever takes one out may hand it on by name; whoever does not must not give it twice.
        return frozenset(given ^ set(self._taken_out(kwargs)))

    def _taken_out(self, kwargs: str) -> Iterator[str]:
        """Names of what is taken out of the dict called ``kwargs``, by ``pop`` or by ``del``."""
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


def _is_callback_call(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and _is_name(node.func, CALLBACK)
