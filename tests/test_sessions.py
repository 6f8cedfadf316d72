"""What noxfile.py prints in the end, which Pythons it finds, and that two of it take turns."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "instruments"))

import environments
import one_core_each
from installed_python import is_installed
from one_at_a_time import one_at_a_time
from session_table import Row, SessionTable, read_rows
from shared_files import share_files
from side_by_side import run_side_by_side

INSTRUMENTS = Path(__file__).parents[1] / "instruments"

TESTS = """
import pytest

def test_passes(): pass
def test_too(): pass
def test_fails(): assert 0
def test_is_skipped(): pytest.skip()
@pytest.fixture
def broken(): raise OSError
def test_has_an_error(broken): pass
@pytest.fixture
def ends_badly():
    yield
    raise OSError
def test_fails_twice(ends_badly): assert 0
@pytest.mark.xfail
def test_is_expected_to_fail(): assert 0
"""


def give_up(noted: SessionTable, reason: str) -> None:
    noted.skip()
    raise ValueError(reason)


def table(*seconds: float) -> SessionTable:
    """One whose clock shows these."""
    times: Iterator[float] = iter(seconds)
    return SessionTable(lambda: next(times))


def test_rows_say_how_sessions_ended() -> None:
    noted = table(0.0, 10.0, 11.5, 41.5, 42.0)
    with noted.row("tests"):
        pass
    with pytest.raises(ValueError, match="command failed"), noted.row("conformance(torch)"):
        raise ValueError("command failed")
    with pytest.raises(ValueError, match="no Chromium"), noted.row("webui(torch)"):
        give_up(noted, "no Chromium")
    with pytest.raises(KeyboardInterrupt), noted.row("both"):
        raise KeyboardInterrupt
    assert [(row.session, row.outcome, row.seconds) for row in noted.rows] == [
        ("tests", "passed", 10.0),
        ("conformance(torch)", "failed", 1.5),
        ("webui(torch)", "skipped", 30.0),
        ("both", "interrupted", 0.5),
    ]


def test_tests_are_counted_from_pytests_reports(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(TESTS)
    report = tmp_path / "report.xml"
    quiet = ["-q", "-p", "no:cacheprovider", f"--junit-xml={report}"]
    subprocess.run([sys.executable, "-m", "pytest", *quiet, str(tmp_path)], capture_output=True)
    noted = table(0.0, 60.4, 61.0)
    with noted.row("tests"):
        noted.count(report)
        noted.count(report)
    with noted.row("lint"):
        noted.count(tmp_path / "was never written.xml")
    assert "\n".join(noted.lines()) == textwrap.dedent("""\
        session           tests passed  tests failed  tests skipped  seconds
        tests     passed             4             8              4       60
        lint      passed                                                   1
        together                     4             8              4       61""")


def test_nothing_is_printed_where_nothing_ran(capsys: pytest.CaptureFixture[str]) -> None:
    noted = table(0.0, 1.0)
    noted.print()
    assert capsys.readouterr().out == ""
    with noted.row("lint"):
        pass
    noted.print()
    assert capsys.readouterr().out.splitlines()[2].split() == ["lint", "passed", "1"]


def test_a_folder_is_used_by_one_at_a_time(tmp_path: Path) -> None:
    said: list[str] = []
    order: list[str] = []
    waits = threading.Event()

    def say(text: str) -> None:
        said.append(text)
        waits.set()

    def second() -> None:
        with one_at_a_time(tmp_path, say):
            order.append("second")

    other = threading.Thread(target=second)
    with one_at_a_time(tmp_path, say):
        assert said == []
        other.start()
        assert waits.wait(60)
        order.append("first")
    other.join()
    assert order == ["first", "second"]
    assert said == [f"waiting for another process, which uses {tmp_path}"]


def test_a_folder_is_free_after_a_process_that_was_killed(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from one_at_a_time import one_at_a_time\n"
        "with one_at_a_time(Path(sys.argv[1]), print): os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], cwd=INSTRUMENTS)
    assert done.returncode == -9
    with one_at_a_time(tmp_path, lambda text: pytest.fail(text)):
        pass


NOX = """
import os, sys
from pathlib import Path
*_, folder, only, _, name = sys.argv
assert only == "--install-only"
assert os.environ["UNICB_WHEEL_IS_BUILT"]
if name == "both":
    sys.exit("no network")
environment = Path(folder, {"conformance(torch)": "conformance-torch"}.get(name, name))
environment.mkdir()  # fails where it is there
"""


def test_environments_that_are_missing_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What cannot be made is no failure: the session itself fails for it."""
    (tmp_path / "nox.py").write_text(NOX)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "tests").mkdir()
    environments.main(tmp_path, ["tests", "both", "conformance(torch)"])
    printed = ["both: not made, its session will say why", "conformance(torch): made"]
    assert capsys.readouterr().out.splitlines() == printed
    environments.main(tmp_path, ["tests", "conformance(torch)"])
    assert capsys.readouterr().out == ""


def test_rows_of_another_process_stand_below_the_session_that_ran_it(tmp_path: Path) -> None:
    """Their seconds are within that session's."""
    assert read_rows(tmp_path / "rows.json") == []
    theirs, ours = table(0.0, 30.0), table(0.0, 10.0, 45.0)
    with theirs.row("docs"):
        theirs.rows[0].tests["passed"] += 5
    theirs.save(tmp_path / "rows.json")
    with ours.row("tests"):
        pass
    with ours.row("side-by-side"):
        ours.add_beside([*read_rows(tmp_path / "rows.json"), Row("webui(torch)", "failed")])
    assert "\n".join(ours.lines()) == textwrap.dedent("""\
        session                 tests passed  tests failed  tests skipped  seconds
        tests           passed                                                  10
        side-by-side    passed                                                  35
          docs          passed             5                                    30
          webui(torch)  failed                                                   0
        together                           5                                    45""")


SIDE_BY_SIDE_NOX = """
import atexit, os, sys, time
from pathlib import Path
from session_table import SessionTable
*_, folder, _, name = sys.argv
table = SessionTable()
if name != "fails early":
    atexit.register(table.save, Path(os.environ["UNICB_SESSION_ROWS"]))
with table.row("wheel"):
    pass
if name == "fails early":
    sys.exit(1)
with table.row(name):
    print("begun")
    if name == "fails":
        raise ValueError("of its own")
    Path(folder, name).touch()
    if name in ("first", "second"):
        for _ in range(6000):
            if {"first", "second"} <= {path.name for path in Path(folder).iterdir()}:
                break
            time.sleep(0.01)
        else:
            sys.exit("the other did not begin")
"""


def test_sessions_run_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nox.py").write_text(SIDE_BY_SIDE_NOX)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(INSTRUMENTS)]))
    said: list[str] = []
    sessions = ["first", "second", "fails", "fails early", "last"]
    rows = run_side_by_side(tmp_path, sessions, {"PYTHONUNBUFFERED": "1"}, said.append)
    assert [(row.session, row.outcome) for row in rows] == [
        ("first", "passed"),
        ("second", "passed"),
        ("fails", "failed"),
        ("fails early", "failed"),
        ("last", "passed"),
    ]
    assert {"first: begun", "second: begun", "last: begun"} <= {*said}
    assert "fails: ValueError: of its own" in said


def put_distribution(site: Path) -> None:
    """A package with a file in a folder, and a program."""
    record = ["large/__init__.py,,", "large/lib/data.bin,,", "../bin/large,,"]
    names = [f"large-1.0.dist-info/{name}" for name in ("METADATA", "RECORD")]
    texts = {"large-1.0.dist-info/METADATA": "Name: large\nVersion: 1.0\n"}
    texts["large-1.0.dist-info/RECORD"] = "\n".join([f"{names[0]},,", f"{names[1]},,", *record])
    for name in (*names, *(line.rstrip(",") for line in record)):
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(texts.get(name, name))


def test_environments_share_the_files_of_a_distribution(tmp_path: Path) -> None:
    donor, taker = tmp_path / "donor" / "site", tmp_path / "taker" / "site"
    put_distribution(donor)
    taker.mkdir(parents=True)
    share_files("large", donor, taker)
    assert [found.version for found in distributions(name="large", path=[str(taker)])] == ["1.0"]
    here, there = (site / "large" / "lib" / "data.bin" for site in (taker, donor))
    assert here.samefile(there)
    # A program names the Python of its own environment.
    assert not (tmp_path / "taker" / "bin").exists()
    here.unlink()  # as pip does before it writes
    here.write_text("another")
    assert there.read_text() == "large/lib/data.bin"


def test_what_another_environment_lacks_is_not_shared(tmp_path: Path) -> None:
    (tmp_path / "taker").mkdir()
    share_files("large", tmp_path / "none", tmp_path / "taker")
    assert not any((tmp_path / "taker").iterdir())


def test_what_cannot_be_linked_is_not_said_to_be_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_distribution(tmp_path / "donor")

    def refuse(*_: Any) -> None:
        raise OSError("this disk has no links")

    monkeypatch.setattr(os, "link", refuse)
    share_files("large", tmp_path / "donor", tmp_path / "taker")
    assert not [*distributions(name="large", path=[str(tmp_path / "taker")])]


def put_python(folder: Path, version: str, does: str) -> None:
    python = folder / f"python{version}"
    python.write_text(f"#!/bin/sh\n{does}\n")
    python.chmod(0o755)


def test_a_python_is_installed_if_it_starts_and_is_that_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert not is_installed("3.99")
    put_python(tmp_path, version, f'exec "{sys.executable}" "$@"')
    assert is_installed(version)
    # As a version manager leaves it for a Python that is not the one in use.
    put_python(tmp_path, "3.99", "echo 3.99; exit 127")
    assert not is_installed("3.99")
    put_python(tmp_path, "3.99", f'exec "{sys.executable}" "$@"')
    assert not is_installed("3.99")


@pytest.mark.parametrize(("worker", "core"), [("gw0", 3), ("gw1", 5), ("gw2", 3), ("", None)])
def test_each_worker_has_a_core_of_its_own(
    worker: str, core: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen: list[int] = []

    def put(process: int, cores: set[int]) -> None:
        chosen.extend(cores)

    monkeypatch.setenv("PYTEST_XDIST_WORKER", worker)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5, 3}, raising=False)
    monkeypatch.setattr(
        os, "sched_setaffinity", lambda _, cores: chosen.extend(cores), raising=False
    )
    one_core_each.pytest_configure()
    assert chosen == ([] if core is None else [core])
