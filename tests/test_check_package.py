"""What nox -s wheel asks of a wheel and an sdist: it takes right ones, and names what is wrong."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "instruments"))

from check_package import problems_of_sdist, problems_of_wheel

PROJECT: dict[str, Any] = {
    "project": {
        "name": "thing",
        "license": "Apache-2.0",
        "license-files": ["LICENSE"],
        "requires-python": ">=3.11",
        "urls": {"Source": "https://example.org/thing"},
        "optional-dependencies": {"torch": ["torch"], "webui": ["gradio"]},
    },
    "tool": {
        "hatch": {
            "build": {
                "targets": {
                    "wheel": {"packages": ["thing", "backends/thing_torch"]},
                    "sdist": {"include": ["/README.md", "/thing", "/backends"]},
                }
            }
        }
    },
}
METADATA = """Metadata-Version: 2.4
Name: thing
License-Expression: Apache-2.0
License-File: LICENSE
Requires-Python: >=3.11
Description-Content-Type: text/markdown
Project-URL: Source, https://example.org/thing
Provides-Extra: torch
Provides-Extra: webui

# thing
"""
SOURCES = [
    *("thing/__init__.py", "thing/py.typed", "thing/facts/facts.toml"),
    *("backends/thing_torch/__init__.py", "backends/thing_torch/py.typed"),
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The sources, with what lies about in a folder that was worked in."""
    lying_about = ["thing/__pycache__/a.pyc", "thing/out/picture.png", "backends/x.egg-info/PKG"]
    for name in (*SOURCES, "README.md", "notes.txt", *lying_about):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / ".gitignore").write_text("__pycache__/\n*.py[cod]\nout/\n*.egg-info/\n")
    return tmp_path


@pytest.fixture
def wheel() -> dict[str, bytes]:
    """The files of a wheel that is right."""
    files = {name.removeprefix("backends/"): b"" for name in SOURCES}
    about = {"METADATA": METADATA.encode(), "entry_points.txt": b"", "licenses/LICENSE": b""}
    return {**files, **{f"thing-1.dist-info/{name}": text for name, text in about.items()}}


def test_a_right_wheel(wheel: dict[str, bytes], root: Path) -> None:
    assert problems_of_wheel(wheel, PROJECT, root) == []


@pytest.mark.parametrize("name", ["thing/facts/facts.toml", "thing_torch/__init__.py"])
def test_a_wheel_that_lacks_something(wheel: dict[str, bytes], root: Path, name: str) -> None:
    del wheel[name]
    assert problems_of_wheel(wheel, PROJECT, root) == [f"the wheel lacks {name}"]


def test_a_wheel_without_a_licence(wheel: dict[str, bytes], root: Path) -> None:
    del wheel["thing-1.dist-info/licenses/LICENSE"]
    assert problems_of_wheel(wheel, PROJECT, root) == ["the wheel lacks licenses/LICENSE"]


def test_a_package_that_is_not_typed(wheel: dict[str, bytes], root: Path) -> None:
    del wheel["thing/py.typed"]
    (root / "thing" / "py.typed").unlink()
    assert problems_of_wheel(wheel, PROJECT, root) == ["thing has no py.typed"]


@pytest.mark.parametrize("name", ["tests/test_thing.py", "thing/out/picture.png"])
def test_a_wheel_with_something_else(wheel: dict[str, bytes], root: Path, name: str) -> None:
    wheel[name] = b""
    assert problems_of_wheel(wheel, PROJECT, root) == [f"the wheel has {name}"]


@pytest.mark.parametrize(
    ("line", "instead", "named"),
    [
        ("License-Expression: Apache-2.0\n", "", "License-Expression"),
        ("Provides-Extra: webui\n", "", "Provides-Extra"),
        ("text/markdown", "text/plain", "Description-Content-Type"),
        ("https://example.org/thing", "https://example.org/other", "Project-URL"),
        ("\n\n#", "\nClassifier: License :: OSI Approved\n\n#", "licence classifier"),
    ],
)
def test_metadata(wheel: dict[str, bytes], root: Path, line: str, instead: str, named: str) -> None:
    assert line in METADATA
    wheel["thing-1.dist-info/METADATA"] = METADATA.replace(line, instead).encode()
    (problem,) = problems_of_wheel(wheel, PROJECT, root)
    assert named in problem


def test_an_sdist(root: Path) -> None:
    right = {*SOURCES, "README.md", "PKG-INFO", ".gitignore"}
    assert problems_of_sdist(right, PROJECT, root) == []
    other = {*right, "notes.txt"} - {"README.md"}
    assert problems_of_sdist(other, PROJECT, root) == [
        "the sdist lacks README.md",
        "the sdist has notes.txt",
    ]
