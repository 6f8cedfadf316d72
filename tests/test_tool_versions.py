"""Versions that stand in several files are the same in all, and Pythons that we name are tested."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
_PIN = re.compile(r"\b([A-Za-z][\w.-]*)==([\w.]+)")


def pins(*files: str) -> set[tuple[str, str]]:
    """Names and versions of all packages that are pinned in these files."""
    return {pin for file in files for pin in _PIN.findall((ROOT / file).read_text("utf-8"))}


def test_pre_commit_has_the_versions_of_nox() -> None:
    hooks = pins(".pre-commit-config.yaml")
    assert {"ruff", "mypy"} <= {name for name, _ in hooks}
    assert hooks - pins("constraints/tools.txt", "constraints/numpy.txt") == set()


def test_pythons_of_the_classifiers_are_tested() -> None:
    noxfile = (ROOT / "noxfile.py").read_text("utf-8")
    lines = re.findall(r"^(?:PYTHON|LATER_PYTHONS) = (.*)$", noxfile, re.MULTILINE)
    tested = re.findall(r"3\.\d+", " ".join(lines))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    language = "Programming Language :: Python :: 3."
    named = [each.rpartition(" ")[2] for each in project["classifiers"] if language in each]
    assert named == tested[: len(named)]
    assert project["requires-python"] == f">={named[0]}"
