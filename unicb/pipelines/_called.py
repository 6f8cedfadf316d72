"""Read from a loop's code which of its models it calls."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from unicb.pipelines._written import self_attribute

#: Names of attributes with models whose output is guided; other models are companions.
DENOISER = re.compile(r"unet|transformer|prior|decoder|denoiser|dit")
_MODEL = re.compile(DENOISER.pattern + "|controlnet")


def aliases(tree: ast.AST) -> dict[str, list[str]]:
    """Return the local variables that hold models, as after ``model = self.transformer``."""
    found: dict[str, list[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = self_attribute(node.value)
            if name is not None and DENOISER.search(name):
                found.setdefault(node.targets[0].id, []).append(name)
    return found


def model_calls(
    loop: ast.AST, standing: dict[str, list[str]]
) -> Iterator[tuple[ast.Call, list[str]]]:
    """Yield the calls of models in the loop, in the order of the code, with the names of the
    models. ``standing`` has the :func:`aliases`."""
    calls = [node for node in ast.walk(loop) if isinstance(node, ast.Call)]
    for node in sorted(calls, key=lambda call: (call.lineno, call.col_offset)):
        if isinstance(node.func, ast.Name) and node.func.id in standing:
            yield node, standing[node.func.id]
        name = self_attribute(node.func)
        if name is not None and _MODEL.search(name):
            yield node, [name]
