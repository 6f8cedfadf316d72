"""The benchmarks that need no framework run, in small: that what they write is whole."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the scripts importable."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def run(script: str, *arguments: str) -> None:
    command = [sys.executable, str(BENCHMARKS / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_import_cost_and_its_page(tmp_path: Path) -> None:
    out = tmp_path / "results"
    run("import_cost.py", "--framework", "none", "--repetitions", "1", "--out", str(out))
    found = json.loads((out / "import_cost-none.json").read_text(encoding="utf-8"))
    assert found["versions"].keys() >= {"python", "unicb", "numpy", "pillow"}
    figures = found["figures"]
    assert all(math.isfinite(item["median"]) and item["median"] >= 0 for item in figures)
    timed = {item["name"] for item in figures if item["case"] == "after numpy and PIL"}
    assert timed >= {"import unicb", "from unicb import *"}
    listed = {item["name"]: item["median"] for item in figures if item["case"] == "themselves"}
    assert any(name.startswith("unicb.") for name in listed)
    assert not {"numpy", "PIL.Image"} & listed.keys()
    assert list(listed.values()) == sorted(listed.values(), reverse=True)

    run("report.py", "--results", str(out))
    page = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert "| ms of importtime | themselves | in all |" in page
    assert all(f"| {name} |" in page for name in {item["name"] for item in figures})


def test_an_import_that_fails_ends_the_script(tmp_path: Path, modules: None) -> None:
    import import_cost

    with pytest.raises(SystemExit, match="No module named 'no_such_module'"):
        import_cost.milliseconds("", "import no_such_module", str(tmp_path))


def test_import_times_are_of_what_the_line_imports(tmp_path: Path, modules: None) -> None:
    import import_cost

    times = import_cost.import_times("import unicb.errors", str(tmp_path))
    assert {"unicb", "unicb.errors"} <= times.keys()
    assert "numpy" not in times
    itself, in_all = times["unicb"]
    assert 0 <= itself <= in_all
