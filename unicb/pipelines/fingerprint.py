"""Find out whether the facts about a pipeline were proven on its loop, by hashes of the loop's
code.

Facts hold for the loop from which they were read. The same class may have another loop in another
release, or after somebody changed it. ``loops.json`` has the fingerprints of the loops on which the
facts were proven, by class and release; ``python -m zoo fingerprints`` writes it.
"""

from __future__ import annotations

import ast
import hashlib
import json
import linecache
import re
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from types import CodeType
from typing import Any

from unicb.pipelines.source import CallSource

_LENGTH = 12


@cache
def _text_of_loops() -> str:
    return files("unicb.pipelines").joinpath("loops.json").read_text(encoding="utf-8")


def proven_loops(class_name: str) -> dict[str, list[str]]:
    """Return the fingerprints of a class's loop, by library and release. Only the class's line of
    the file is parsed: to parse the whole file would take longer than to bind."""
    found = re.search(rf'^  "{class_name}": (.*?),?$', _text_of_loops(), re.MULTILINE)
    loops: dict[str, list[str]] = json.loads(found[1]) if found else {}
    return loops


def proven_releases() -> tuple[str, ...]:
    """Return the libraries and releases of which there are fingerprints, sorted."""
    loops = json.loads(_text_of_loops())
    return tuple(sorted({release for found in loops.values() for release in found}))


def is_proven(class_name: str, source: CallSource) -> bool:
    """Return whether the facts about ``class_name`` were proven on a loop with this source."""
    known = {one for found in proven_loops(class_name).values() for one in found}
    return any(one in known for one in fingerprints(source))


def fingerprints(source: CallSource) -> Iterator[str]:
    """Yield a hash of the text of a ``__call__``, then a hash of its syntax tree, as far as they
    can be read.

    The first takes 1 ms. The second takes up to 20 ms, and does not depend on comments, the layout
    of the text, annotations or the docstring.
    """
    if source.code is not None and (text := _text(source.code)):
        yield _hash(text)
    if (tree := source.written.tree) is not None:
        yield _hash(repr(_meaning(tree)))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_LENGTH]


def _text(code: CodeType) -> str:
    """Return the source lines of a function, by the line numbers in its bytecode, which is faster
    than ``inspect``."""
    lines = linecache.getlines(code.co_filename)[code.co_firstlineno - 1 : _last_line(code)]
    return "\n".join(line.rstrip() for line in lines)


def _last_line(code: CodeType) -> int:
    inner = (_last_line(one) for one in code.co_consts if isinstance(one, CodeType))
    return max(*(end or 0 for _, end, _, _ in code.co_positions()), *inner, 0)


def _meaning(node: Any) -> Any:
    """Reduce a syntax tree to what matters to a run; the result is the same in every Python
    version."""
    if isinstance(node, list):
        return [_meaning(item) for item in node]
    if not isinstance(node, ast.AST):
        return node
    fields = dict(ast.iter_fields(node))
    if isinstance(node, ast.FunctionDef):
        documented = ast.get_docstring(node) is not None
        fields = {"args": node.args, "body": node.body[documented:]}
    for name in ("annotation", "kind", "type_comment", "ctx"):
        fields.pop(name, None)
    said = [(name, _meaning(value)) for name, value in fields.items() if value not in (None, [])]
    return [type(node).__name__, *said]
