"""Read loops that change their latents besides ``scheduler.step``, and repeat those changes.

Some loops step with the frames of a video as rows; some put a given picture back outside of a mask.
The loop's own statements are run on the step's latents, so that callbacks see the latents with
which the loop goes on. Loops that do anything else are refused.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import CodeType
from typing import Any, NamedTuple, TypeAlias

from unicb.pipelines._written import self_attribute

#: A function that returns the running loop's local variables of the given names, if they exist.
LoopLocals: TypeAlias = Callable[[list[str]], Mapping[str, Any]]

#: Methods that reshape a tensor, or convert its dtype.
_MOVES = frozenset(
    ["permute", "reshape", "view", "transpose", "swapaxes", "unsqueeze", "squeeze", "to", "astype"]
)
#: Functions of a framework that make a tensor from numbers.
_MAKERS = frozenset(["tensor", "Tensor"])
_PURE = (
    *(ast.Name, ast.Constant, ast.Tuple, ast.List, ast.Slice, ast.Subscript, ast.Attribute),
    *(ast.BinOp, ast.UnaryOp, ast.Compare, ast.IfExp, ast.operator, ast.unaryop, ast.cmpop),
    *(ast.expr_context, ast.keyword),
)


class WrittenAround(NamedTuple):
    """``WrittenAround`` has statements of a loop's body that change its latents and nothing else.

    Attributes:
        latents: name of the local variable with the latents.
        before: statements that turn the latents into the sample for ``scheduler.step``; None if the
            sample is the latents.
        after: statements that turn the result of ``scheduler.step`` into the latents with which the
            loop goes on.
    """

    latents: str
    before: ast.stmt | None
    after: tuple[ast.stmt, ...]


def written_around(
    body: Sequence[ast.stmt], latents: str, step: int, stores: Iterable[ast.stmt]
) -> WrittenAround | None:
    """Read what a loop does to its latents around its step; None if that cannot be repeated.

    Args:
        body: the statements of the loop.
        latents: name of the local variable with the latents.
        step: index in ``body`` of the statement that calls ``scheduler.step``.
        stores: the other statements that assign to the latents.
    """
    found = list(stores)
    before = [statement for statement in body[:step] if statement in found]
    after = _leading_to(latents, body[step + 1 :])
    whole = [*before, *after]
    known = all(map(_only_assigns, whole)) and all(statement in whole for statement in found)
    if not after or not known:
        return None
    if not before:
        is_one = _is_blend(after, latents)
    else:
        is_one = len(before) == 1 and all(_is_move(statement, latents) for statement in whole)
    return WrittenAround(latents, before[0] if before else None, tuple(after)) if is_one else None


def _is_move(statement: ast.stmt, latents: str) -> bool:
    """Return whether a statement only changes the latents' shape or dtype."""
    if not (isinstance(statement, ast.Assign) and _names(statement, ast.Store) == {latents}):
        return False
    value = statement.value
    while not isinstance(value, ast.Name):
        if isinstance(value, ast.Subscript):  # indexing that adds an axis
            if ast.unparse(value.slice).strip("()") not in ("None", "None, :"):
                return False
            value = value.value
        elif isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute):
            if value.func.attr not in _MOVES:
                return False
            value = value.func.value
        else:
            return False
    return value.id == latents


def _is_blend(statements: Sequence[ast.stmt], latents: str) -> bool:
    """Return whether statements compute ``latents * mask + other * (1 - mask)``, in any order,
    where neither mask nor other depends on the latents."""
    *others, last = statements
    if not all(_is_move(one, latents) or latents not in _names(one) for one in others):
        return False
    value = last.value if isinstance(last, ast.Assign) else None
    if not (isinstance(value, ast.BinOp) and isinstance(value.op, ast.Add)):
        return False
    sides = [_factors(side) for side in (value.left, value.right)]
    for own, other in (sides, sides[::-1]):
        masks = [factor for factor in own if latents not in _names(factor)]
        is_theirs = all(latents not in _names(factor) for factor in other)
        if len(own) == 2 and len(masks) == 1 and is_theirs:
            named = own[1 - own.index(masks[0])]
            is_own = isinstance(named, ast.Name)
            return is_own and any(_add_up_to_one(masks[0], factor) for factor in other)
    return False


def _factors(product: ast.expr) -> list[ast.expr]:
    if isinstance(product, ast.BinOp) and isinstance(product.op, ast.Mult):
        return [product.left, product.right]
    return []


def _add_up_to_one(a: ast.expr, b: ast.expr) -> bool:
    """Return whether one of two expressions is ``1 -`` the other."""

    def is_rest(x: ast.expr, of: ast.expr) -> bool:
        if not (isinstance(x, ast.BinOp) and isinstance(x.op, ast.Sub)):
            return False
        is_one = isinstance(x.left, ast.Constant) and x.left.value == 1
        return is_one and ast.dump(x.right) == ast.dump(of)

    return is_rest(a, b) or is_rest(b, a)


def _leading_to(name: str, statements: Sequence[ast.stmt]) -> list[ast.stmt]:
    """List, in order, the statements on which the value of a local variable depends."""
    needed, found = {name}, list[ast.stmt]()
    for statement in reversed(statements):
        if needed & _names(statement, ast.Store):
            found.insert(0, statement)
            needed |= _names(statement, ast.Load)
    return found


def _names(tree: ast.AST, context: type[ast.expr_context] = ast.expr_context) -> set[str]:
    named = (node for node in ast.walk(tree) if isinstance(node, ast.Name))
    return {node.id for node in named if isinstance(node.ctx, context)}


def _only_assigns(statement: ast.stmt) -> bool:
    """Return whether a statement assigns to local variables, and does nothing else."""
    if isinstance(statement, ast.If):
        branches = [*statement.body, *statement.orelse]
        return _is_pure(statement.test) and all(map(_only_assigns, branches))
    return (
        isinstance(statement, ast.Assign)
        and all(isinstance(target, ast.Name) for target in statement.targets)
        and _is_pure(statement.value)
    )


def _is_pure(expression: ast.expr) -> bool:
    """Return whether an expression has no side effects and gives the same value again."""
    return all(
        _is_pure_call(node) if isinstance(node, ast.Call) else isinstance(node, _PURE)
        for node in ast.walk(expression)
    )


def _is_pure_call(call: ast.Call) -> bool:
    if not isinstance(call.func, ast.Attribute):
        return False
    name, owner = call.func.attr, call.func.value
    if name == "add_noise":  # its noise is an argument
        return self_attribute(owner) is not None
    return name in _MOVES or (name in _MAKERS and isinstance(owner, ast.Name))


class AroundStep:
    """``AroundStep`` repeats what a loop does to its latents around ``scheduler.step``.

    Args:
        written: the statements around the step.
        variables: the globals of the loop's function.

    Attributes:
        reshapes: True if the loop steps its latents in another shape.
    """

    def __init__(self, written: WrittenAround, variables: dict[str, Any]) -> None:
        self.reshapes = written.before is not None
        self._latents, self._variables = written.latents, variables
        self._before = _Statements([written.before]) if written.before is not None else None
        self._after = _Statements(written.after)

    def kept(self, stepped: Any, loop_locals: LoopLocals) -> Any:
        """Compute the latents with which the loop goes on, from the result of
        ``scheduler.step``."""
        return self._run(self._after, stepped, loop_locals)

    def to_step(self, latents: Any, loop_locals: LoopLocals) -> Any:
        """Compute the scheduler's result that makes the loop go on with these latents.

        A loop that reshapes then goes on with exactly these latents; a loop that puts a given
        picture back does that to them, too.
        """
        return latents if self._before is None else self._run(self._before, latents, loop_locals)

    def _run(self, statements: _Statements, latents: Any, loop_locals: LoopLocals) -> Any:
        values = {**loop_locals(statements.names), self._latents: latents}
        exec(statements.code, self._variables, values)
        return values[self._latents]


class _Statements:
    """Compiled statements, and the names that they read."""

    def __init__(self, statements: Iterable[ast.stmt]) -> None:
        body = list(statements)
        self.code: CodeType = compile(ast.Module(body, []), "<around scheduler.step>", "exec")
        self.names = sorted(set().union(*(_names(statement, ast.Load) for statement in body)))
