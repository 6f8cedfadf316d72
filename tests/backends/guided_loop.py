"""A loop's guidance, computed from its code with three numbers in the place of tensors.

What a denoiser answers is the number ``u`` or ``c``, or both as rows; whatever scales or shifts a
prediction by something else (a sigma, a mask) is taken to scale by 1 and to shift by 0, and a norm
to be 1. So what reaches ``scheduler.step`` is, up to its sign, how the loop combines the two.
"""

from __future__ import annotations

import ast
import inspect
import operator
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from unicb.pipelines import PipelineFacts

#: What an expression is that has nothing to do with a prediction.
UNKNOWN = object()
_NORMS = {"norm", "vector_norm", "std"}
_ON = ("do_classifier_free_guidance", "do_true_cfg", "do_cfg", "apply_cfg")
_ARITHMETIC = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul}
_COMPARED = {
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Lt: operator.lt,
    ast.NotEq: operator.ne,
    ast.Eq: operator.eq,
}


@dataclass(frozen=True)
class Rows:
    """A prediction of several blocks of rows, a number each."""

    blocks: tuple[float, ...]

    def map(self, function: Any) -> Rows:
        return Rows(tuple(function(block) for block in self.blocks))


@cache
def source_of(kind: Any, name: str = "__call__") -> ast.AST | None:
    """The syntax tree of a method, or of a property; None if there is no such thing."""
    method = getattr(kind, name, None)
    method = method.fget if isinstance(method, property) else method
    if method is None:
        return None
    return ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(method))))


def loop_of(kind: Any) -> ast.For | ast.While | None:
    """The innermost loop of ``__call__`` that calls the callback."""
    tree = source_of(kind)
    loops = [
        node
        for node in ast.walk(tree or ast.Module([], []))
        if isinstance(node, ast.For | ast.While) and "callback_on_step_end(" in ast.unparse(node)
    ]
    return loops[-1] if loops else None


class GuidedLoop:
    """One step of a class's loop.

    Args:
        unconditional, conditional: what the denoiser answers.
        scale: the scale in the places that the facts name, from the denoiser's call on.
        elsewhere: the scale in all other places, and there before the call.
    """

    def __init__(
        self,
        kind: Any,
        facts: PipelineFacts,
        unconditional: float,
        conditional: float,
        scale: float,
        elsewhere: float,
    ) -> None:
        self._kind, self._facts = kind, facts
        self._parts = {"unconditional": unconditional, "conditional": conditional}
        self._scale, self._elsewhere = scale, elsewhere
        self._calls = 0
        self._variables: dict[str, Any] = {}
        self._aliases = {
            node.targets[0].id
            for node in ast.walk(source_of(kind) or ast.Module([], []))
            if isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and self._model(node.value)
        }
        #: The numbers that ``scheduler.step`` was called with.
        self.stepped: list[float] = []

    def run(self) -> list[float]:
        loop = loop_of(self._kind)
        if loop is not None:
            self._execute(loop.body)
        return self.stepped

    def _model(self, node: ast.AST) -> bool:
        return any(ast.unparse(node) == f"self.{name}" for name in self._facts.denoisers)

    def _execute(self, body: list[ast.stmt]) -> None:
        for statement in body:
            if isinstance(statement, ast.Assign):
                for target in statement.targets:
                    self._assign(target, self._value(statement.value))
            elif isinstance(statement, ast.If):
                self._execute(self._branch(statement))
            elif isinstance(statement, ast.For | ast.With | ast.While):
                self._execute(statement.body)
            elif isinstance(statement, ast.Expr):
                self._value(statement.value)

    def _branch(self, statement: ast.If) -> list[ast.stmt]:
        test = self._test(statement.test)
        steps = ".step(" in ast.unparse(ast.Module(statement.body, []))
        only = test is UNKNOWN and steps and not statement.orelse
        return statement.body if test is True or only else statement.orelse

    def _assign(self, target: ast.expr, value: Any) -> None:
        if isinstance(target, ast.Tuple):
            several = isinstance(value, tuple)
            if several and any(isinstance(part, ast.Starred) for part in target.elts):
                several = False
            values = value if several else (value,) * len(target.elts)
            for part, item in zip(target.elts, values, strict=False):
                self._assign(part, item)
        elif isinstance(target, ast.Name | ast.Attribute):
            self._variables[ast.unparse(target)] = value

    def _name(self, name: str) -> Any:
        bare = _plain(name)
        if bare in _ON:
            return True
        if "truncation" in bare:
            return False
        if name in self._variables:
            return self._variables[name]
        locals_ = {n for n in self._facts.scale_names if not n.startswith("self.")}
        # An attribute is read as it is, or by the property of its name.
        attributes = {_plain(n) for n in self._facts.scale_names if n not in locals_}
        attributes.update(_plain(n) for n in self._facts.scale_follows)
        named = bare in attributes if name.startswith("self.") else name in locals_
        if named or bare.endswith(("guidance_scale", "cfg_scale")):
            return self._scale if named and self._calls else self._elsewhere
        return UNKNOWN

    def _test(self, node: ast.expr) -> Any:
        """Whether a condition holds; UNKNOWN where it asks for something else than guidance."""
        if isinstance(node, ast.BoolOp):
            tests = [self._test(value) for value in node.values]
            decisive = isinstance(node.op, ast.Or)
            if decisive in tests:
                return decisive
            return UNKNOWN if UNKNOWN in tests else not decisive
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            test = self._test(node.operand)
            return UNKNOWN if test is UNKNOWN else not test
        if isinstance(node, ast.Compare):
            return self._compared(node)
        return self._value(node)

    def _compared(self, node: ast.Compare) -> Any:
        if isinstance(node.ops[0], ast.IsNot):
            return True
        left, right = self._value(node.left), self._value(node.comparators[0])
        compare = _COMPARED.get(type(node.ops[0]))
        if compare is None or UNKNOWN in (left, right):
            return UNKNOWN
        return compare(left, right)

    def _value(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant():
                return node.value
            case ast.Name() | ast.Attribute():
                return self._name_or_part(node)
            case ast.BoolOp() | ast.Compare():
                return self._test(node)
            case ast.UnaryOp(op=ast.USub()):
                return _each(operator.neg, self._value(node.operand))
            case ast.BinOp():
                return self._arithmetic(node)
            case ast.Call():
                return self._called(node)
            case ast.Subscript():
                return self._part(self._value(node.value), node.slice)
            case ast.List():
                return [self._value(item) for item in node.elts]
            case ast.Tuple():
                return tuple(self._value(item) for item in node.elts)
            case ast.IfExp():
                return self._value(node.body if self._test(node.test) is True else node.orelse)
            case _:
                return UNKNOWN

    def _name_or_part(self, node: ast.Name | ast.Attribute) -> Any:
        if isinstance(node, ast.Attribute) and not isinstance(node.value, ast.Name):
            return self._value(node.value)  # ``(...).sample``
        found = self._name(ast.unparse(node))
        if found is UNKNOWN and isinstance(node, ast.Attribute):
            return self._value(node.value)  # ``out.sample``
        return found

    def _arithmetic(self, node: ast.BinOp) -> Any:
        left, right = self._value(node.left), self._value(node.right)
        if isinstance(node.op, ast.Div):
            if left is UNKNOWN:
                return UNKNOWN
            return left if right is UNKNOWN else left / right
        operation = _ARITHMETIC.get(type(node.op))
        if operation is None:
            return UNKNOWN
        if left is UNKNOWN or right is UNKNOWN:
            known = right if left is UNKNOWN else left
            if not isinstance(known, Rows) and not self._guides(node):
                return UNKNOWN  # ``(1 - mask)``
            negated = left is UNKNOWN and isinstance(node.op, ast.Sub)
            return _each(operator.neg, known) if negated else known
        return _both(operation, left, right)

    def _guides(self, node: ast.AST) -> bool:
        """Whether a prediction is among an expression's names."""
        names = [ast.unparse(n) for n in ast.walk(node) if isinstance(n, ast.Name)]
        return any(isinstance(self._variables.get(name), float | Rows) for name in names)

    def _called(self, node: ast.Call) -> Any:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)
        if self._model(node.func) or ast.unparse(node.func) in self._aliases:
            return self._predicted()
        given = [self._value(argument) for argument in node.args]
        if name in _NORMS:
            return 1.0
        if name == "append" and isinstance(node.func, ast.Attribute):
            self._value(node.func.value).append(given[0])
            return None
        if name == "lerp":
            first, second, weight = given
            return first + weight * (second - first)
        axis = [self._value(word.value) for word in node.keywords if word.arg in ("dim", "axis")]
        if name in ("cat", "concat", "stack") and given and isinstance(given[0], list | tuple):
            return _joined(given[0], (*axis, *given[1:2]))
        if name in ("chunk", "split", "unbind"):
            mine = isinstance(node.func, ast.Attribute) and not _is_module(node.func.value)
            whole = self._value(node.func.value) if mine else given[0]
            sizes = given if mine else given[1:]
            return _split(whole, (*axis, *sizes[1:2]))
        if name == "step":
            words = [word for word in node.keywords if word.arg == "model_output"]
            stepped = given[0] if given else self._value(words[0].value)
            if isinstance(stepped, float):
                self.stepped.append(stepped)
            return stepped
        if isinstance(node.func, ast.Attribute) and not _is_module(node.func.value):
            whole = self._value(node.func.value)
            if whole is not UNKNOWN and ast.unparse(node.func.value) != "self":
                return whole  # ``prediction.float()``
        return next((x for x in given if isinstance(x, float | Rows)), UNKNOWN)

    def _predicted(self) -> Any:
        count, order = self._calls, self._facts.order[: self._facts.least_blocks or None]
        if not count:
            for name in self._facts.scale_names:  # as the facts say: when the denoiser is called
                if name in self._variables:
                    self._variables[name] = self._scale
        self._calls += 1
        if self._facts.cfg == "batch":
            # Blocks of the same kind are of different conditions: with pictures, and without.
            repeats = (order[:i].count(part) for i, part in enumerate(order))
            return Rows(tuple(self._parts[p] + n for p, n in zip(order, repeats, strict=True)))
        return self._parts[self._facts.order[count % len(self._facts.order)]]

    def _part(self, whole: Any, index: ast.expr) -> Any:
        if isinstance(whole, tuple | list) and isinstance(index, ast.Constant):
            return whole[index.value]
        if isinstance(whole, Rows) and isinstance(index, ast.Slice):
            if index.step is not None:  # rows in pairs: ``[::2]`` and ``[1::2]``
                return whole.blocks[1 if index.lower is not None else 0]
            return whole.blocks[0 if index.lower is None else 1]
        return whole


def _plain(name: str) -> str:
    return name.removeprefix("self.").removeprefix("_")


def _is_module(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("torch", "ops", "mint", "ms", "mindspore")


def _each(function: Any, value: Any) -> Any:
    if isinstance(value, Rows):
        return value.map(function)
    return value if value is UNKNOWN else function(value)


def _both(operation: Any, left: Any, right: Any) -> Any:
    if isinstance(left, Rows) and isinstance(right, Rows):
        pairs = zip(left.blocks, right.blocks, strict=True)
        return Rows(tuple(operation(a, b) for a, b in pairs))
    if isinstance(left, Rows):
        return left.map(lambda x: operation(x, right))
    if isinstance(right, Rows):
        return right.map(lambda x: operation(left, x))
    try:
        return operation(left, right)
    except TypeError:
        return UNKNOWN


def _joined(parts: Any, axis: tuple[Any, ...]) -> Any:
    known = [part for part in parts if isinstance(part, float | Rows)]
    if not known:
        return UNKNOWN
    if len(parts) == 1 or (axis and axis[0] != 0) or any(isinstance(x, Rows) for x in known):
        return known[0]
    return Rows(tuple(known))


def _split(whole: Any, axis: tuple[Any, ...]) -> Any:
    if isinstance(whole, Rows) and not (axis and axis[0] not in (0, UNKNOWN)):
        return whole.blocks
    return whole


def comparisons(kind: Any, names: tuple[str, ...]) -> Iterator[tuple[type, float]]:
    """What the class asks of scales by these names to know whether to guide."""
    flag = source_of(kind, "do_classifier_free_guidance")
    for tree in (flag, source_of(kind)):
        for node in ast.walk(tree or ast.Module([], [])):
            if not isinstance(node, ast.Compare) or len(node.ops) != 1:
                continue
            number = node.comparators[0]
            if isinstance(number, ast.Constant) and isinstance(number.value, int | float):
                asked = ast.unparse(node.left).removesuffix(".max()")
                if _plain(asked) in names:
                    yield type(node.ops[0]), float(number.value)
