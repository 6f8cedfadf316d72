"""What is claimed to work with which versions is what was measured."""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "instruments"))

from zoo.compat import SUBJECTS, _text, features  # noqa: E402
from zoo.compat_report import GOOD, page  # noqa: E402

MEASURED: dict[str, Any] = json.loads((ROOT / "docs/compatibility.json").read_text("utf-8"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
#: How many parts of the newest version that was measured a claim keeps: 2.13.0 is one below 2.14.
PARTS = {"transformers": 1, "numpy": 1}


def claims(framework: str) -> dict[str, Requirement]:
    listed = map(Requirement, PROJECT["optional-dependencies"][framework])
    return {one.name: one for one in listed}


def measured(framework: str, package: str) -> list[Version]:
    found = [about for about in MEASURED.values() if about["framework"] == framework]
    return sorted(Version(about["versions"][package]) for about in found)


def test_page() -> None:
    assert (ROOT / "docs/compatibility.md").read_text("utf-8") == page(MEASURED)


def test_file_is_written_with_a_line_for_each_row() -> None:
    text = (ROOT / "docs/compatibility.json").read_text("utf-8")
    assert _text(MEASURED) == text
    assert max(map(len, text.splitlines())) < 2000


def test_environments_are_those_of_the_sessions() -> None:
    files = {path.stem for path in (ROOT / "constraints/compat").glob("*.txt")}
    assert set(MEASURED) == files


@pytest.mark.parametrize("name", MEASURED)
def test_versions_are_those_of_the_constraints(name: str) -> None:
    lines = (ROOT / f"constraints/compat/{name}.txt").read_text("utf-8").splitlines()
    pinned = [line.split("==") for line in lines if "==" in line]
    found = MEASURED[name]["versions"]
    for package, version in pinned:
        # torch says how it was built, too: 2.13.0+cpu.
        assert found.get(package, version).partition("+")[0] == version


@pytest.mark.parametrize("name", MEASURED)
def test_nothing_is_wrong(name: str) -> None:
    verdicts = {row[what] for row in MEASURED[name]["rows"] for what in SUBJECTS}
    assert verdicts <= {*GOOD, "refused", "failed"}  # failed without unicb, too


@pytest.mark.parametrize("name", MEASURED)
def test_every_way_and_layout_is_covered(name: str) -> None:
    about = MEASURED[name]
    found = {feature for row in about["rows"] for feature in features(row["class"])}
    assert {("way", way) for way in ("batch", "calls", "switch")} <= found
    assert len({value for what, value in found if what == "layout"}) >= 5
    assert about["loops"]["proven"] > 50


@pytest.mark.parametrize("framework", ["torch", "mindspore"])
def test_pyproject_claims_what_was_measured_and_no_more(framework: str) -> None:
    for package, claim in claims(framework).items():
        if not claim.specifier:
            continue  # of which nothing is used here
        found = measured(framework, package)
        assert all(claim.specifier.contains(version) for version in found), package
        if any(one.operator == "==" for one in claim.specifier):
            continue
        lowest = [one.version for one in claim.specifier if one.operator == ">="]
        for bound in lowest:
            assert Version(bound) == Version(".".join(str(found[0]).split(".")[:2])), package
        newest = found[-1].release
        parts = PARTS.get(package, 2)
        later = ".".join(map(str, [*newest[: parts - 1], newest[parts - 1] + 1]))
        assert not claim.specifier.contains(later), f"{package} {later} was not measured"


def test_numpy_and_python() -> None:
    (claim,) = (one for one in map(Requirement, PROJECT["dependencies"]) if one.name == "numpy")
    lowest = min(measured("torch", "numpy"))
    assert {str(one) for one in claim.specifier} == {f">={lowest.major}.{lowest.minor}"}
    pythons = {".".join(a["versions"]["python"].split(".")[:2]) for a in MEASURED.values()}
    assert min(pythons, key=Version) == PROJECT["requires-python"].removeprefix(">=")
