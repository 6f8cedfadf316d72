"""A loop is known by its code: by its text, or else by what that means."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from unicb.pipelines import fingerprint, known_pipelines
from unicb.pipelines.fingerprint import fingerprints, is_proven, proven_loops, proven_releases
from unicb.pipelines.source import CallSource

LOOP = '''
class Pipe:
    def __call__(self, prompt: str, steps: int = 3, callback_on_step_end=None):
        """Says what it does."""
        for index in range(steps):
            # A comment.
            x = self.unet(prompt) * 2
            callback_on_step_end(self, index, 0, {})
        return x
'''


def made(text: str, folder: Path, name: str = "one") -> type:
    """The class that a file of this text has."""
    path = folder / f"{name}.py"
    path.write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(f"loops_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    kind: type = module.Pipe
    return kind


def hashes(kind: type) -> list[str]:
    return list(fingerprints(CallSource.of(kind)))


SAME: dict[str, tuple[str, str]] = {
    "a comment": ("# A comment.", "# Another one."),
    "the docstring": ("Says what it does.", "Does what it says."),
    "an annotation": ("prompt: str", "prompt: object"),
    "the layout": (
        "self.unet(prompt) * 2",
        "(\n                self.unet(prompt) * 2\n            )",
    ),
}
OTHER: dict[str, tuple[str, str]] = {
    "a number": ("* 2", "* 3"),
    "a name": ("self.unet", "self.transformer"),
    "an operator": ("* 2", "+ 2"),
    "a default": ("steps: int = 3", "steps: int = 4"),
    "the place of a line": ("            callback_on_step_end(", "        callback_on_step_end("),
}


@pytest.mark.parametrize("name", SAME)
def test_what_means_the_same_is_the_same_loop(name: str, tmp_path: Path) -> None:
    before, after = SAME[name]
    assert before in LOOP
    (text, tree), (other_text, other_tree) = (
        hashes(made(LOOP, tmp_path)),
        hashes(made(LOOP.replace(before, after), tmp_path, "other")),
    )
    assert text != other_text
    assert tree == other_tree


@pytest.mark.parametrize("name", OTHER)
def test_what_means_another_thing_is_another_loop(name: str, tmp_path: Path) -> None:
    before, after = OTHER[name]
    assert before in LOOP
    found = hashes(made(LOOP, tmp_path))
    assert not {*found} & {*hashes(made(LOOP.replace(before, after), tmp_path, "other"))}


def test_the_text_is_all_of_the_function(tmp_path: Path) -> None:
    kind = made(LOOP, tmp_path)
    text = fingerprint._text(kind.__call__.__code__)  # type: ignore[attr-defined]
    assert text == inspect.getsource(kind.__call__).rstrip("\n")


def test_a_loop_without_a_source_has_no_fingerprint() -> None:
    namespace: dict[str, Any] = {}
    exec(LOOP, namespace)
    assert hashes(namespace["Pipe"]) == []


def test_the_file() -> None:
    text = files("unicb.pipelines").joinpath("loops.json").read_text(encoding="utf-8")
    loops = json.loads(text)
    assert set(loops) <= set(known_pipelines())
    assert len(loops) > 190
    assert {name.split()[0] for name in proven_releases()} == {"diffusers", "mindone"}
    assert all(proven_loops(name) == loops[name] for name in loops)
    assert proven_loops("NoSuchPipeline") == {}
    assert all(len(found) == 2 for loop in loops.values() for found in loop.values())


def test_a_release_that_the_file_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its loops are none that are known, and are seen to guide."""
    kind = made(LOOP, tmp_path)
    known = json.dumps({"old 1.0": hashes(kind)})
    monkeypatch.setattr(fingerprint, "_text_of_loops", lambda: f'{{\n  "Pipe": {known}\n}}\n')
    assert is_proven("Pipe", CallSource.of(kind))
    assert proven_releases() == ("old 1.0",)
    new = made(LOOP.replace("* 2", "* 3"), tmp_path, "new")
    assert not is_proven("Pipe", CallSource.of(new))


def test_trees_are_hashed_alike_whatever_the_python() -> None:
    """Fields that are empty, or that another version has besides, do not count."""
    tree = ast.parse("def f(a, b=1):\n    return a + b\n")
    before = repr(fingerprint._meaning(tree))
    function: Any = tree.body[0]
    function.type_params = []
    function.type_comment = "of another version"
    assert repr(fingerprint._meaning(tree)) == before
    assert "type_params" not in before


@pytest.mark.parametrize(("name", "library"), [("torch", "diffusers"), ("mindspore", "mindone")])
def test_every_loop_that_was_measured_is_known(name: str, library: str) -> None:
    """The cut was measured on it by the facts, so the facts hold for it. (mindone's loops that call
    no callback are looked at instead, and were measured so.)"""
    file = Path(__file__).parents[1] / "docs" / "coverage" / f"{name}.json"
    measured = json.loads(file.read_text(encoding="utf-8"))
    release = f"{library} {measured['versions'][library]}"
    rows = [row for row in measured["rows"] if name == "torch" or "told_by" not in row]
    exact = {row["class"] for row in rows if row["verdict"] == "exact"}
    assert len(exact) > 100
    assert {kind for kind in exact if release not in proven_loops(kind)} == set()
