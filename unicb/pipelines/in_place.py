"""Find loops that write into their latents in place, instead of making a new tensor in each
step."""

from __future__ import annotations

import ast

from unicb.pipelines.source import CallSource

_LATENTS = "latents"


def writes_into_latents(kind: type) -> bool:
    """Return whether the code of a class's ``__call__`` assigns to a part of its latents; False if
    that code cannot be read."""
    return CallSource.of(kind).once(_sets_a_part, kind)


def _sets_a_part(kind: type) -> bool:
    trees = [call.written.tree for call in CallSource.of(kind).calls]
    nodes = (node for tree in trees if tree is not None for node in ast.walk(tree))
    return any(
        isinstance(node, ast.Subscript)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == _LATENTS
        for node in nodes
    )
