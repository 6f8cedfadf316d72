"""Read from its code how a loop without a callback calls ``self.scheduler.step``."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeAlias

from unicb.pipelines._around_step import WrittenAround, written_around
from unicb.pipelines._called import DENOISER, aliases, model_calls
from unicb.pipelines._written import self_attribute

SCHEDULER = "scheduler"
#: Which part of the result of ``scheduler.step`` is the latents: an index, a name, or None for all.
OutputPart: TypeAlias = int | str | None
#: Methods that a loop may call on its latents after the step, since they do not change the numbers.
_HARMLESS = ("to", "astype", "type")
#: Functions that may be wrapped around the timesteps in a loop's first line.
_WRAPPERS = ("enumerate", "progress_bar", "tqdm", "list", "iter")


class StepSite(NamedTuple):
    """A step site is one call of ``scheduler.step``: its first and last line, counted from 1 in the
    function's source; and the part of its result with which the loop goes on."""

    first: int
    last: int
    part: OutputPart


class WrittenStepping(NamedTuple):
    """``WrittenStepping`` says how a loop steps.

    Attributes:
        loop: the loop's syntax tree.
        sites: where it calls ``scheduler.step``; each round makes one of these calls.
        latents: name of the local variable with the latents.
        over: name of the local variable with the timesteps; empty if they are
            ``scheduler.timesteps``.
        half: name of the local variable with the first half of the latents' rows, in a loop that
            doubles the rows for guidance and drops the second half in the next round; else empty.
        scales: True if the loop keeps the result of ``scheduler.scale_model_input`` as its latents.
        models: names of the models that the loop calls.
        around: what else the loop does to its latents; None if nothing.
    """

    loop: ast.For
    sites: tuple[StepSite, ...]
    latents: str
    over: str
    half: str
    scales: bool
    models: tuple[str, ...]
    around: WrittenAround | None


class Unclear(Exception):
    """A loop's steps cannot be noticed; the message says why, as the end of a sentence."""


def stepping_loop(function: ast.FunctionDef) -> ast.For | None:
    """Return the one loop of a ``__call__`` that calls ``self.scheduler.step``; None if there is
    none."""
    try:
        return _loop(function, _parents(function))
    except Unclear:
        return None


def read_stepping(function: ast.FunctionDef) -> WrittenStepping:
    """Read how a ``__call__`` steps.

    Raises:
        Unclear: it does not step by its scheduler, or its code is not fully understood.
    """
    parents = _parents(function)
    loop = _loop(function, parents)
    for node in ast.walk(function):
        if self_attribute(node) == SCHEDULER and isinstance(getattr(node, "ctx", None), ast.Store):
            raise Unclear("it exchanges its scheduler in its call")
    if _rounds(loop.body) != (1, 1):
        raise Unclear("not each round of its loop calls scheduler.step exactly once")
    _check_goes_on(loop)
    calls = list(_steps(loop))
    taken = [_taken(call, parents) for call in calls]
    latents = taken[0][0]
    if any(name != latents for name, _ in taken) or any(_sample(c) != latents for c in calls):
        raise Unclear("what its loop hands to scheduler.step is not what it took from the last one")
    half = _half(loop, latents)
    scales = any(_scaled(node, latents) for node in ast.walk(loop))
    around = _around_step(loop, latents, half, scales, parents)
    over = _iterated(loop)
    sites = tuple(
        StepSite(call.lineno, call.end_lineno or call.lineno, part)
        for call, (_, part) in zip(calls, taken, strict=True)
    )
    models = _models(function, loop)
    return WrittenStepping(loop, sites, latents, over, half, scales, models, around)


def _parents(tree: ast.AST) -> dict[ast.AST, ast.AST]:
    return {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}


def _stepped(node: ast.AST) -> str | None:
    """Return the scheduler's attribute in ``self.scheduler.step(...)``; None for anything else."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
        return None
    name = self_attribute(node.func.value) if node.func.attr == "step" else None
    return name if name is not None and SCHEDULER in name else None


def _steps(tree: ast.AST) -> Iterator[ast.Call]:
    found = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and _stepped(n) == SCHEDULER]
    return iter(sorted(found, key=lambda call: call.lineno))


def _loop(function: ast.FunctionDef, parents: dict[ast.AST, ast.AST]) -> ast.For:
    schedulers = {name: None for n in ast.walk(function) if (name := _stepped(n)) is not None}
    if SCHEDULER not in schedulers:
        if not schedulers:
            raise Unclear("its __call__ has no loop that calls self.scheduler.step")
        raise Unclear(f"its __call__ steps with {' and '.join(sorted(schedulers))}")
    loops = {_around(call, parents) for call in _steps(function)}
    if len(loops) != 1:
        raise Unclear("it has several loops that call self.scheduler.step")
    loop = loops.pop()
    if not isinstance(loop, ast.For):
        raise Unclear("it calls self.scheduler.step in no loop over timesteps")
    others = {name for node in ast.walk(loop) if (name := _stepped(node)) is not None}
    if others != {SCHEDULER}:
        raise Unclear(f"its loop steps with {' and '.join(sorted(others))}")
    return loop


def _around(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> ast.AST | None:
    """Return the innermost loop or function around the node."""
    while node in parents:
        node = parents[node]
        if isinstance(node, ast.For | ast.While | ast.FunctionDef | ast.Lambda):
            return node
    return None


def _rounds(body: Sequence[ast.stmt]) -> tuple[int, int]:
    """Count how often these statements call ``scheduler.step``, at least and at most."""
    least = most = 0
    for statement in body:
        if isinstance(statement, ast.If):
            ways = [_rounds(statement.body), _rounds(statement.orelse)]
            least, most = least + min(w[0] for w in ways), most + max(w[1] for w in ways)
        elif isinstance(statement, ast.With):
            inner = _rounds(statement.body)
            least, most = least + inner[0], most + inner[1]
        else:
            count = len(list(_steps(statement)))
            exact = isinstance(statement, ast.Assign)
            least, most = least + (count if exact else 0), most + count
    return least, most


def _check_goes_on(loop: ast.For) -> None:
    """Raise Unclear if the loop may leave a round or end early, other than by the interrupt
    flag."""
    left: list[ast.AST] = [*loop.body]
    while left:
        node = left.pop()
        if isinstance(node, ast.If) and "interrupt" in (self_attribute(node.test) or ""):
            left += node.orelse
        elif isinstance(node, ast.Continue | ast.Break | ast.Return):
            raise Unclear("its loop may leave a round before its end")
        elif not isinstance(node, ast.For | ast.While | ast.FunctionDef | ast.Lambda):
            left += ast.iter_child_nodes(node)


def _taken(call: ast.Call, parents: dict[ast.AST, ast.AST]) -> tuple[str, OutputPart]:
    """Return the name of the local variable that gets the step's result, and which part of the
    result it gets."""
    part: OutputPart = None
    node = parents[call]
    if isinstance(node, ast.Attribute):
        part, node = node.attr, parents[node]
    elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        part, node = node.slice.value, parents[node]  # type: ignore[assignment]
    if isinstance(node, ast.Assign) and len(node.targets) == 1:
        target = node.targets[0]
        if isinstance(target, ast.Name) and (not isinstance(part, str) or part == "prev_sample"):
            return target.id, part
    raise Unclear("what its loop does with the result of scheduler.step is not known")


def _sample(call: ast.Call) -> str | None:
    """Return the name of the local variable that is handed to ``scheduler.step`` as its sample."""
    named = {word.arg: word.value for word in call.keywords}
    given = call.args[2] if len(call.args) > 2 else named.get("sample")
    return given.id if isinstance(given, ast.Name) else None


def _around_step(
    loop: ast.For, latents: str, half: str, scales: bool, parents: dict[ast.AST, ast.AST]
) -> WrittenAround | None:
    """Read what the loop does to its latents besides the step; None if nothing.

    Raises:
        Unclear: the loop does something that cannot be repeated.
    """
    stores = list[ast.stmt]()
    for node in ast.walk(loop):
        if not (isinstance(node, ast.Name) and node.id == latents):
            continue
        parent = parents[node]
        # By an index, or by a method whose name ends in _, like torch's in-place methods.
        in_place = isinstance(parent, ast.Subscript) and isinstance(parent.ctx, ast.Store)
        in_place |= isinstance(parent, ast.Attribute) and parent.attr.endswith("_")
        stored = isinstance(node.ctx, ast.Store) and not _is_harmless(parent, latents, half)
        if in_place:
            raise _changes(latents, _statement(node, parents))
        if stored:
            stores.append(_statement(node, parents))
    if not stores:
        return None
    holders = [i for i, statement in enumerate(loop.body) if any(True for _ in _steps(statement))]
    if len(holders) == 1 and not (half or scales):
        outer = [_in_body(statement, loop, parents) for statement in stores]
        around = written_around(loop.body, latents, holders[0], outer)
        if around is not None:
            return around
    raise _changes(latents, stores[0])


def _changes(latents: str, statement: ast.stmt) -> Unclear:
    return Unclear(
        f"its loop changes {latents} otherwise than by scheduler.step: `{ast.unparse(statement)}`"
    )


def _in_body(statement: ast.stmt, loop: ast.For, parents: dict[ast.AST, ast.AST]) -> ast.stmt:
    """Return the statement of the loop's own body that holds this one."""
    node: ast.AST = statement
    while parents[node] is not loop:
        node = parents[node]
    assert isinstance(node, ast.stmt)
    return node


def _half(loop: ast.For, latents: str) -> str:
    """Return the name of the local variable with the first half of the latents, which the loop
    doubles."""
    counts = f"len({latents})", f"{latents}.shape[0]"
    firsts = [f"{latents}[:{count} // 2]" for count in counts]
    halves = [
        node.targets[0].id
        for node in ast.walk(loop)
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and ast.unparse(node.value) in firsts
    ]
    return halves[0] if len(halves) == 1 else ""


def _doubled(value: ast.AST, half: str) -> bool:
    """Return whether the value is a concatenation of that half with itself."""
    if not (half and isinstance(value, ast.Call) and value.args):
        return False
    named = {word.arg: ast.unparse(word.value) for word in value.keywords}
    axis = {*map(ast.unparse, value.args[1:]), *named.values()}
    name = value.func.attr if isinstance(value.func, ast.Attribute) else ""
    parts = ast.unparse(value.args[0])
    return name in ("cat", "concat") and parts == f"[{half}, {half}]" and axis <= {"0"}


def _scaled(node: ast.AST, latents: str) -> bool:
    """Return whether the node assigns the result of ``scheduler.scale_model_input`` to the
    latents."""
    return (
        isinstance(node, ast.Assign)
        and ast.unparse(node.targets[0]) == latents
        and ast.unparse(node.value).startswith(f"self.scheduler.scale_model_input({latents}, ")
    )


def _is_harmless(stored: ast.AST, latents: str, half: str) -> bool:
    """Return whether an assignment to the latents is the step's own, or does not change their
    numbers."""
    if not isinstance(stored, ast.Assign):
        return False
    if any(True for _ in _steps(stored)) or _scaled(stored, latents):
        return True
    if _doubled(stored.value, half):
        return True
    value = stored.value
    return (
        isinstance(value, ast.Call)
        and isinstance(value.func, ast.Attribute)
        and value.func.attr in _HARMLESS
        and isinstance(value.func.value, ast.Name)
        and value.func.value.id == latents
    )


def _statement(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> ast.stmt:
    while not isinstance(node, ast.stmt):
        node = parents[node]
    return node


def below_wrappers(node: ast.expr) -> ast.expr:
    """Return the expression inside ``enumerate``, a progress bar and the like."""
    while isinstance(node, ast.Call) and node.args:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else None
        name = node.func.id if isinstance(node.func, ast.Name) else name
        if name not in _WRAPPERS:
            break
        node = node.args[0]
    return node


def _iterated(loop: ast.For) -> str:
    """Return the name of the local variable that the loop iterates over, without wrappers; empty
    for ``self.scheduler.timesteps``."""
    node = below_wrappers(loop.iter)
    if isinstance(node, ast.Attribute) and node.attr == "timesteps":
        if self_attribute(node.value) == SCHEDULER:
            return ""
    elif isinstance(node, ast.Name) and not _stores(loop, node.id):
        return node.id
    raise Unclear(f"how many steps its loop takes is not known: it goes over `{ast.unparse(node)}`")


def _stores(loop: ast.For, name: str) -> bool:
    return any(
        isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Store)
        for node in ast.walk(loop)
    )


def _models(function: ast.FunctionDef, loop: ast.For) -> tuple[str, ...]:
    """Return the names of the models that the loop calls, denoisers first."""
    called = [name for _, names in model_calls(loop, aliases(function)) for name in names]
    found = dict.fromkeys(called)
    return tuple(sorted(found, key=lambda name: DENOISER.search(name) is None))
