"""Starts a group of processes that make many cases, one after the other, and reads what they say.

To import a framework takes eight seconds, so one process imports it, and the ranks are forked from
that. What a rank finds is written to a file, line by line: a rank that is killed has said all that
it had to say before.
"""

from __future__ import annotations

import ast
import importlib
import json
import multiprocessing
import os
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

#: Seconds after which a group is given up, for each of its cases.
LONGEST = 300.0

Case = Callable[..., Any]

if TYPE_CHECKING:
    import pytest


def cases_of(registry: dict[str, Case]) -> Callable[[Case], Case]:
    """A decorator that notes a case under its name."""

    def note(case: Case) -> Case:
        registry[case.__name__] = case
        return case

    return note


def make(registry: dict[str, Case], names: Sequence[str], folder: Path, rank: int) -> None:
    """Make these cases on this rank: by their names, or with an argument, ``name:argument``."""
    with open(folder / f"rank-{rank}.jsonl", "a", encoding="utf-8") as file:
        for name in names:
            began = time.perf_counter()
            try:
                function, _, argument = name.partition(":")
                arguments = (argument,) if argument else ()
                found: dict[str, Any] = {"found": registry[function](rank, folder, *arguments)}
            except BaseException as error:
                found = {"error": f"{error}\n{traceback.format_exc()}"}
            line = {"case": name, "seconds": time.perf_counter() - began, **found}
            file.write(json.dumps(line) + "\n")
            file.flush()


def names_of(script: Path, decorator: str) -> list[str]:
    """Names of the cases with this decorator, read off the file: to import it takes long."""
    found = [node for node in ast.parse(script.read_text("utf-8")).body if _is_function(node)]
    return [node.name for node in found if decorator in map(ast.unparse, node.decorator_list)]


def _is_function(node: ast.stmt) -> TypeGuard[ast.FunctionDef]:
    return isinstance(node, ast.FunctionDef)


def _work(module: str, *about: Any) -> None:
    importlib.import_module(module).work(*about)


def run_ranks(module: str, size: int, folder: Path, names: list[str]) -> list[dict[str, Any]]:
    """Have ``size`` processes call the module's ``work(rank, size, folder, names)``. Returns what
    each of them has said of each case, by its name."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([module])
    # Python 3.11 does not hand its path on to the process that imports it.
    given = [os.environ["PYTHONPATH"]] if "PYTHONPATH" in os.environ else []
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *given])
    about = size, folder, names
    ranks = [context.Process(target=_work, args=(module, r, *about)) for r in range(size)]
    for process in ranks:
        process.start()
    until = time.monotonic() + LONGEST + 4 * len(names)
    for process in ranks:
        process.join(max(0.0, until - time.monotonic()))
    for process in ranks:
        process.kill()
    return [read(folder / f"rank-{rank}.jsonl") for rank in range(size)]


def asked_for(request: pytest.FixtureRequest, names: Sequence[str]) -> list[str]:
    """Those of the cases whose tests are to be run."""
    specs = [getattr(item, "callspec", None) for item in request.session.items]
    asked = {spec.params.get("case") for spec in specs if spec is not None}
    return [name for name in names if name in asked]


def read(file: Path) -> dict[str, Any]:
    lines = file.read_text("utf-8").splitlines() if file.exists() else []
    return {said["case"]: said for said in map(json.loads, lines)}


def what(said: dict[str, Any], name: str) -> Any:
    """What a rank has found in a case; its error is the test's."""
    assert name in said, f"this rank has said nothing of {name}: it hangs, or is gone"
    assert "error" not in said[name], said[name]["error"]
    return said[name]["found"]
