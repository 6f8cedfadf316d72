"""The examples and the README, run as their readers would."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Not the sources themselves: what is tested is the installed wheel.
sys.path.insert(0, str(ROOT / "instruments"))

CODE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def run(arguments: list[str], folder: Path) -> str:
    # The sources must not hide the installed package.
    env = {**os.environ, "PYTHONSAFEPATH": "1", "PYTHONPATH": str(ROOT / "examples")}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def quickstart(tmp_path: Path) -> Callable[..., Path]:
    """Run examples/quickstart.py; returns the folder that it wrote."""

    def start(*arguments: str) -> Path:
        out = tmp_path / "out"
        script = str(ROOT / "examples" / "quickstart.py")
        printed = run([script, "--out", str(out), *arguments], tmp_path)
        assert "contact_sheet.png" in printed
        return out

    return start


@pytest.fixture
def own_callbacks(tmp_path: Path) -> Callable[[str], list[str]]:
    """Run examples/own_callbacks.py for 5 steps; returns the names of what it wrote."""

    def start(framework: str) -> list[str]:
        script = str(ROOT / "examples" / "own_callbacks.py")
        few = ["--steps", "5", "--stop-after", "3"]
        printed = run([script, "--framework", framework, "--out", "own", *few], tmp_path)
        assert "interrupted after step 3" in printed
        return sorted(path.name for path in (tmp_path / "own").iterdir())

    return start


@pytest.fixture
def example(tmp_path: Path) -> Callable[..., list[list[float]]]:
    """Run one of examples/ by its name; returns the rows of the table that it prints."""

    def start(name: str, framework: str, *more: str) -> list[list[float]]:
        script = str(ROOT / "examples" / f"{name}.py")
        out = tmp_path / "sheet.png"
        printed = run([script, "--framework", framework, "--out", str(out), *more], tmp_path)
        assert out.is_file()
        rows = [line.split() for line in printed.splitlines()]
        return [[float(x) for x in row] for row in rows if row[0].isdigit()]

    return start


@pytest.fixture
def run_readme(tmp_path: Path) -> Callable[..., Path]:
    """Run the README's Python blocks, all that do not say ``without``, as one script; or those
    that say ``only``."""

    def start(wanted: str, without: str, only: str = "") -> Path:
        blocks = CODE.findall((ROOT / "README.md").read_text(encoding="utf-8"))
        chosen = [block for block in blocks if without not in block and only in block]
        assert any(wanted in block for block in chosen)
        (tmp_path / "examples").symlink_to(ROOT / "examples")
        (tmp_path / "readme.py").write_text("\n".join(chosen), encoding="utf-8")
        run(["readme.py"], tmp_path)
        return tmp_path

    return start
