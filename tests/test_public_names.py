"""Built-in callbacks use nothing that a user's cannot."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import unicb.callbacks

FILES = sorted(Path(unicb.callbacks.__file__).parent.glob("*.py"))


def private_names(code: str) -> Iterator[str]:
    """Private names of others that the code uses: attributes, and modules that it imports from."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Attribute) and _is_private(node.attr):
            if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")):
                yield ast.unparse(node)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            for module in [getattr(node, "module", None), *(name.name for name in node.names)]:
                if module is not None and not module.startswith("unicb.callbacks."):
                    yield from ([module] if any(map(_is_private, module.split("."))) else [])
                if module is not None and module.startswith("unicb.run"):
                    yield module


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_callbacks_use_public_names(file: Path) -> None:
    # How a package's names are imported when they are first used is nothing that a callback does.
    found = [name for name in private_names(file.read_text("utf-8")) if name != "unicb._lazy"]
    found = [name for name in found if not (file.name == "__init__.py" and name == "lazy")]
    assert found == []
    assert len(FILES) > 15


@pytest.mark.parametrize(
    "code",
    [
        "step._run.aside()",
        "from unicb._official import PlainCallback",
        "import unicb.run.loop",
        "from unicb.run.run import Run",
        "from unicb.latents import _vae",
    ],
)
def test_private_names_are_seen(code: str) -> None:
    assert [*private_names(code)]
