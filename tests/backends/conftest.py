"""The examples and the README, run as their readers would."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from page_blocks import PRINTED, blocks
from scripts import Done, run_script

ROOT = Path(__file__).parents[2]
# Not the sources themselves: what is tested is the installed wheel.
sys.path.insert(0, str(ROOT / "instruments"))

CODE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def run_example(name: str, folder: Path, *arguments: str) -> str:
    """Run one of examples/; returns what it prints."""
    done = run_script(ROOT / "examples" / f"{name}.py", *arguments, folder=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(autouse=True, scope="module")
def _ready() -> None:
    # Not above: the process that hands out tests to others needs no framework.
    import here

    here.make_ready()


@pytest.fixture
def quickstart(tmp_path: Path) -> Callable[..., Path]:
    """Run examples/quickstart.py; returns the folder that it wrote."""

    def start(*arguments: str) -> Path:
        out = tmp_path / "out"
        printed = run_example("quickstart", tmp_path, "--out", str(out), *arguments)
        assert "contact_sheet.png" in printed
        return out

    return start


@pytest.fixture
def own_loop(tmp_path: Path) -> Callable[..., Path]:
    """Run examples/own_loop.py; returns the folder that it wrote."""

    def start(*arguments: str) -> Path:
        out = tmp_path / "own_loop"
        run_example("own_loop", tmp_path, "--out", str(out), *arguments)
        return out

    return start


@pytest.fixture
def own_callbacks(tmp_path: Path) -> Callable[[str], list[str]]:
    """Run examples/own_callbacks.py for 5 steps; returns the names of what it wrote."""

    def start(framework: str) -> list[str]:
        few = ("--framework", framework, "--out", "own", "--steps", "5", "--stop-after", "3")
        printed = run_example("own_callbacks", tmp_path, *few)
        assert "interrupted after step 3" in printed
        return sorted(path.name for path in (tmp_path / "own").iterdir())

    return start


@pytest.fixture
def example(tmp_path: Path) -> Callable[..., list[list[float]]]:
    """Run one of examples/ by its name; returns the rows of the table that it prints."""

    def start(name: str, framework: str, *more: str) -> list[list[float]]:
        out = tmp_path / "sheet.png"
        wanted = ("--framework", framework, "--out", str(out))
        printed = run_example(name, tmp_path, *wanted, *more)
        assert out.is_file()
        rows = [line.split() for line in printed.splitlines()]
        return [[float(x) for x in row] for row in rows if row[0].isdigit()]

    return start


@pytest.fixture
def run_page(tmp_path: Path) -> Callable[..., Path]:
    """Run a page's Python blocks, those of a tab among them, as one script in a new process, in a
    folder with the examples; what each prints has to be what the page says. Returns the folder."""

    def start(page: str, tab: str) -> Path:
        chosen = [block for block in blocks(ROOT / page) if block.tab in ("", tab)]
        told = [block for block in chosen if block.language in ("python", *PRINTED)]
        code = [block.text for block in told if block.language == "python"]
        (tmp_path / "examples").symlink_to(ROOT / "examples")
        script = tmp_path / "page.py"
        script.write_text("\nprint(end='\\0')\n".join(code), encoding="utf-8")
        # The sources must not hide what is installed.
        env = {**os.environ, "PYTHONSAFEPATH": "1"}
        command = [sys.executable, str(script)]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        says = "".join("\0" if block.language == "python" else block.text for block in told)
        # transformers 4 prints at import what it lacks for models of its own.
        said = re.sub(r"^.*auto_docstring\.py\n", "", done.stdout, flags=re.MULTILINE)
        assert said == says.removeprefix("\0")
        return tmp_path

    return start


@pytest.fixture
def run_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Run the README's Python blocks, all that do not say ``without``, as one script; or those
    that say ``only``, in a new process."""
    examples = str(ROOT / "examples")

    def run_alone(script: Path) -> Done:
        # The sources must not hide what is installed.
        env = {**os.environ, "PYTHONSAFEPATH": "1", "PYTHONPATH": examples}
        command = [sys.executable, str(script)]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
        return Done(done.stdout, done.stderr, done.returncode)

    def start(wanted: str, without: str, only: str = "") -> Path:
        blocks = CODE.findall((ROOT / "README.md").read_text(encoding="utf-8"))
        chosen = [block for block in blocks if without not in block and only in block]
        assert any(wanted in block for block in chosen)
        (tmp_path / "examples").symlink_to(ROOT / "examples")
        script = tmp_path / "readme.py"
        script.write_text("\n".join(chosen), encoding="utf-8")
        monkeypatch.syspath_prepend(examples)
        done = run_alone(script) if only else run_script(script, folder=tmp_path)
        assert done.returncode == 0, done.stderr
        return tmp_path

    return start
