"""Makes the page of the conformance suite's checks from their docstrings."""

from __future__ import annotations

import ast
from pathlib import Path


def checks_page(root: Path) -> str:
    """Return the page: each check of the conformance suite, by its docstring."""
    lines = [
        "# The checks\n",
        "`python -m unicb.testing NAME` makes these checks of a backend ([how](porting.md)).",
        "Each has mutants that prove that it can fail. This page is made from their docstrings.\n",
    ]
    for file in sorted((root / "unicb" / "testing").glob("_*.py")):
        tree = ast.parse(file.read_text("utf-8"))
        checks = [
            (node.name, ast.get_docstring(node) or "")
            for kind in tree.body
            if isinstance(kind, ast.ClassDef)
            for node in kind.body
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
        ]
        if checks:
            title = file.stem.strip("_").replace("_", " ").capitalize()
            about = (ast.get_docstring(tree) or "").partition("\n")[0]
            lines += [f"## {title}\n", f"{about}\n"]
            lines += [f"- `{name}`: {_one_line(doc)}" for name, doc in checks]
            lines += [""]
    return "\n".join(lines)


def _one_line(docstring: str) -> str:
    return " ".join(docstring.split()).replace("``", "`")
