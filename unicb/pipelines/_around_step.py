"""Loops that do more to their latents than ``scheduler.step``, as their code is written.

Some have the frames of a video as rows while they step; some put a given picture back outside of a
mask. The loop's own statements say how, and are run on the latents at hand: so callbacks see what
the loop goes on with. A loop that does anything else is none of these.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import CodeType
from typing import Any, NamedTuple, TypeAlias

from unicb.pipelines._written import self_attribute

#: Gives the values of those locals of the running loop that it has, by name.
LoopLocals: TypeAlias = Callable[[list[str]], Mapping[str, Any]]

#: Methods that move a tensor's numbers, or convert them.
_MOVES = frozenset(
    ["permute", "reshape", "view", "transpose", "swapaxes", "unsqueeze", "squeeze", "to", "astype"]
)
#: Functions of a framework that make a tensor of numbers.
_MAKERS = frozenset(["tensor", "Tensor"])
_PURE = (
    *(ast.Name, ast.Constant, ast.Tuple, ast.List, ast.Slice, ast.Subscript, ast.Attribute),
    *(ast.BinOp, ast.UnaryOp, ast.Compare, ast.IfExp, ast.operator, ast.unaryop, ast.cmpop),
    *(ast.expr_context, ast.keyword),
)


class WrittenAround(NamedTuple):
    """``WrittenAround`` has statements of a loop's body that change its latents and nothing else.

    Attributes:
        latents: the local that it keeps them in.
        before: makes of them what ``scheduler.step`` is given; None where that is the latents.
        after: makes of what ``scheduler.step`` returns what the loop goes on with.
    """

    latents: str
    before: ast.stmt | None
    after: tuple[ast.stmt, ...]


def written_around(
    body: Sequence[ast.stmt], latents: str, step: int, stores: Iterable[ast.stmt]
) -> WrittenAround | None:
    """Read what a loop does to its latents around its step; None where that cannot be repeated.

    Args:
        body: the loop's.
        latents: the local that it keeps its latents in.
        step: the place in ``body`` of the statement that calls ``scheduler.step``.
        stores: the statements that store latents, apart from that.
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
    """Return whether a statement gives the latents another shape, or dtype, and no more."""
    if not (isinstance(statement, ast.Assign) and _names(statement, ast.Store) == {latents}):
        return False
    value = statement.value
    while not isinstance(value, ast.Name):
        if isinstance(value, ast.Subscript):  # an axis more
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
    """Return whether statements come to ``latents * mask + other * (1 - mask)``, in any order, and
    neither mask nor other follows from the latents."""
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
    """List those of the statements that the value of a local follows from, in their order."""
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
    """Return whether a statement gives values to locals, and does nothing else."""
    if isinstance(statement, ast.If):
        branches = [*statement.body, *statement.orelse]
        return _is_pure(statement.test) and all(map(_only_assigns, branches))
    return (
        isinstance(statement, ast.Assign)
        and all(isinstance(target, ast.Name) for target in statement.targets)
        and _is_pure(statement.value)
    )


def _is_pure(expression: ast.expr) -> bool:
    """Return whether to compute an expression once more changes nothing, and gives the same."""
    return all(
        _is_pure_call(node) if isinstance(node, ast.Call) else isinstance(node, _PURE)
        for node in ast.walk(expression)
    )


def _is_pure_call(call: ast.Call) -> bool:
    if not isinstance(call.func, ast.Attribute):
        return False
    name, owner = call.func.attr, call.func.value
    if name == "add_noise":  # of noise that it is given
        return self_attribute(owner) is not None
    return name in _MOVES or (name in _MAKERS and isinstance(owner, ast.Name))


class AroundStep:
    """``AroundStep`` repeats what a loop does to its latents around ``scheduler.step``.

    Args:
        written: the statements.
        variables: the globals of the loop's function.

    Attributes:
        reshapes: whether the loop steps its latents in another shape.
    """

    def __init__(self, written: WrittenAround, variables: dict[str, Any]) -> None:
        self.reshapes = written.before is not None
        self._latents, self._variables = written.latents, variables
        self._before = _Statements([written.before]) if written.before is not None else None
        self._after = _Statements(written.after)

    def kept(self, stepped: Any, loop_locals: LoopLocals) -> Any:
        """Compute the latents that the loop goes on with, of what ``scheduler.step`` returned."""
        return self._run(self._after, stepped, loop_locals)

    def to_step(self, latents: Any, loop_locals: LoopLocals) -> Any:
        """Compute what stands for these latents in ``scheduler.step``.

        A loop that reshapes goes on with these latents; one that puts a given picture back does
        so with them, as with what its scheduler computes.
        """
        return latents if self._before is None else self._run(self._before, latents, loop_locals)

    def _run(self, statements: _Statements, latents: Any, loop_locals: LoopLocals) -> Any:
        values = {**loop_locals(statements.names), self._latents: latents}
        exec(statements.code, self._variables, values)
        return values[self._latents]


class _Statements:
    """Statements, compiled, and the names that they read."""

    def __init__(self, statements: Iterable[ast.stmt]) -> None:
        body = list(statements)
        self.code: CodeType = compile(ast.Module(body, []), "<around scheduler.step>", "exec")
        self.names = sorted(set().union(*(_names(statement, ast.Load) for statement in body)))
