"""The conformance suite as a tool: its two ways in, and what it refuses."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest

import unicb.testing
from unicb import BackendLoadError
from unicb.testing import BackendSuite, Harness, load_harness
from unicb.testing import harness as harness_module
from unicb.testing.__main__ import main
from unicb.testing._groups import about
from unicb.testing.harness import EVERY_KIND
from unicb.testing.suite import GROUPS, check_names
from unicb_numpy.harness import NumpyHarness

SAMPLING = """
from unicb.testing import BackendSuite
from unicb_numpy.harness import NumpyHarness

class Sampling(NumpyHarness):
    kinds = ("text2img", "other", "third")
    sampled_kinds = ("other",)

class TestMine(BackendSuite):
    harness = Sampling()
"""

OWN_PYTEST = """
from unicb import BackendLoadError
from unicb.testing import BackendSuite, Harness, load_harness
from unicb.testing import harness as harness_module
from unicb_numpy.harness import NumpyHarness

class MyHarness(NumpyHarness):
    expected_failures = {expected!r}

class TestMine(BackendSuite):
    harness = MyHarness()
"""


class Done(NamedTuple):
    """What came of a command."""

    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Done]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Does in this process what ``python -m`` would do, in an empty folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("UNICB_TESTING_BACKEND", "")
    before = set(sys.modules)
    modules: dict[str, Callable[[list[str]], int]] = {"pytest": pytest.main, "unicb.testing": main}

    def run(module: str, *arguments: str) -> Done:
        capsys.readouterr()
        code = int(modules[module]([*arguments]))
        for name in set(sys.modules) - before:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
                del sys.modules[name]
        return Done(code, *capsys.readouterr())

    return run


def start(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run in another process."""
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder)


def ids(output: str) -> list[str]:
    found = (line.partition("::")[2].partition("::")[2] for line in output.splitlines())
    return sorted(filter(None, found))


def test_every_check_says_what_it_promises() -> None:
    for name in check_names():
        assert getattr(BackendSuite, name).__doc__, name
    assert len(check_names()) > 30


def test_readme_says_how_many_checks_there_are() -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
    assert f"until it passes: {len(check_names())} checks" in readme
    assert all(sys.modules[group.__module__].__doc__ for group in GROUPS)


def test_assertions_of_every_check_tell_their_values() -> None:
    rewritten = {f"unicb.testing.{module}" for module in unicb.testing._CHECKS}
    assert {group.__module__ for group in GROUPS} <= rewritten


def test_both_ways_run_the_same_checks(run: Run) -> None:
    Path("test_mine.py").write_text(OWN_PYTEST.format(expected={}))
    own = run("pytest", "--co", "-q", "-p", "no:cacheprovider")
    installed = run("unicb.testing", "numpy", "--co", "-q")
    assert own.returncode == installed.returncode == 0
    assert "test_clamp[float16]" in ids(own.stdout)
    assert ids(own.stdout) == ids(installed.stdout)


def test_summary_tells_groups_versions_and_device(tmp_path: Path) -> None:
    done = start("unicb.testing", "numpy", "-q", "-k", "chunk", folder=tmp_path)
    assert done.returncode == 0
    assert "backend numpy: numpy 2." in done.stdout
    assert "device: cpu" in done.stdout
    assert "not covered" in done.stdout
    assert "bfloat16, inpaint, controlnet, ip-adapter" in done.stdout
    assert "parts " in done.stdout


def test_report_is_a_page(run: Run) -> None:
    done = run("unicb.testing", "numpy", "-q", "-k", "concat", "--report", "report.html")
    assert done.returncode == 0
    assert "test_concat" in Path("report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nonesuch"], 2, "installed: mindspore, numpy, torch"),
        (["torch"], 2, "caused by ModuleNotFoundError"),
        (["numpy", "-k", "no_check_of_this_name"], 5, ""),
        (["torch", "-n", "2"], 2, "caused by ModuleNotFoundError"),
    ],
)
def test_run_that_checks_nothing_fails(
    run: Run, arguments: list[str], code: int, said: str
) -> None:
    if arguments[0] == "torch" and find_spec("torch"):
        arguments = ["mindspore", *arguments[1:]]  # whichever framework is not here
    done = run("unicb.testing", *arguments)
    assert done.returncode == code
    assert said in done.stderr


def test_run_in_which_everything_is_skipped_fails(run: Run) -> None:
    Path("skip_all.py").write_text(
        "import pytest\n\n\n@pytest.hookimpl\ndef pytest_runtest_setup(item):\n    pytest.skip()\n"
    )
    sys.path.insert(0, str(Path.cwd()))
    done = run("unicb.testing", "numpy", "-q", "-k", "chunk", "-p", "skip_all")
    assert done.returncode == 1
    assert "no check passed" in done.stderr


def test_expected_failure_that_passes_is_an_error(run: Run) -> None:
    code = OWN_PYTEST.format(expected={"test_clamp[float16]": "it is a Tuesday"})
    Path("test_mine.py").write_text(code)
    done = run("pytest", "-q", "-k", "clamp", "-p", "no:cacheprovider")
    assert done.returncode == 1
    assert "[XPASS(strict)] it is a Tuesday" in done.stdout
    assert "1 failed, 2 passed" in done.stdout


def test_expected_failure_with_unknown_parameters_is_an_error(run: Run) -> None:
    code = OWN_PYTEST.format(expected={"test_clamp[float8]": "there is none"})
    Path("test_mine.py").write_text(code)
    done = run("pytest", "-q", "-k", "clamp", "-p", "no:cacheprovider")
    assert done.returncode != 0
    assert "expected failures that do not exist: test_clamp[float8]" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("expected", "said"),
    [({"test_clmap": "typing"}, "names no check"), ({"test_clamp": " "}, "has no reason")],
)
def test_expected_failures_are_checked(expected: dict[str, str], said: str) -> None:
    class Sloppy(NumpyHarness):
        expected_failures = expected

    with pytest.raises(TypeError, match=said):
        type("TestSloppy", (BackendSuite,), {"harness": Sloppy()})


def test_overriding_a_check_is_an_error() -> None:
    with pytest.raises(TypeError, match="overrides test_chunk, test_clamp"):
        type(
            "TestLenient",
            (BackendSuite,),
            {"harness": NumpyHarness(), "test_clamp": None, "test_chunk": None},
        )


def test_suite_without_a_harness_is_an_error() -> None:
    with pytest.raises(TypeError, match=r"is no unicb\.testing\.Harness"):
        type("TestBare", (BackendSuite,), {})


def test_harness_that_lacks_something_is_an_error() -> None:
    class Bare(NumpyHarness):
        kinds = ()

    with pytest.raises(TypeError, match="Bare lacks kinds"):
        type("TestBare", (BackendSuite,), {"harness": Bare()})
    unfinished = type("Unfinished", (Harness,), {"kinds": ("text2img",)})
    with pytest.raises(TypeError, match=r"build.*run.*spy.*tensor.*traces"):
        unfinished()


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (None, "ModuleNotFoundError"),
        ("harness = 3", "a int is no"),
        ("class H(__import__('unicb.testing').testing.Harness): ...\nharness = H()", "abstract"),
    ],
)
def test_backend_without_a_harness_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str | None, said: str
) -> None:
    name = f"unicb_mine_{len(said)}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("from unicb_numpy import backend\n")
    if module is not None:
        (tmp_path / name / "harness.py").write_text(module)
    monkeypatch.syspath_prepend(str(tmp_path))
    point = EntryPoint("mine", f"{name}:backend", "unicb.backends")
    monkeypatch.setattr(harness_module, "entry_points", lambda **_: [point])
    monkeypatch.setattr(harness_module, "get_backend", lambda _: None)
    with pytest.raises(BackendLoadError, match=said) as caught:
        load_harness("mine")
    assert caught.value.__cause__ is not None


def test_a_group_can_be_chosen(run: Run) -> None:
    done = run("unicb.testing", "numpy", "--co", "-q", "-k", "guidance")
    chosen = {name.partition("[")[0] for name in ids(done.stdout)}
    assert {"test_cut_is_exact", "test_documented_recipe"} <= chosen
    assert not chosen & {"test_chunk", "test_preview_colours"}


def test_state_is_checked_on_sampled_kinds_and_guidance_on_all(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("test_mine.py").write_text(SAMPLING)

    def kinds(check: str) -> list[str]:
        done = run("pytest", "--co", "-q", "-k", check, "-p", "no:cacheprovider")
        assert done.returncode == 0
        return [name.partition("[")[2].rstrip("]") for name in ids(done.stdout)]

    assert kinds("test_interrupt_stops_after_step") == ["other"]
    assert kinds("test_cut_leaves_nothing_behind") == ["other", "text2img", "third"]
    batches = [f"other-{batch}" for batch in ("1x1", "1x2", "2x1", "2x2")]
    assert kinds("test_cut_is_exact") == [*batches, "text2img-2x2", "third-2x2"]
    monkeypatch.setenv(EVERY_KIND, "1")
    assert kinds("test_interrupt_stops_after_step") == ["other", "text2img", "third"]
    assert len(kinds("test_cut_is_exact")) == 12


def test_summary_tells_of_sampled_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    class Sampling(NumpyHarness):
        kinds = ("text2img", "other")
        sampled_kinds = ("other",)

    assert about(Sampling())[-1].endswith("on 1 of 2 kinds, all with --every-kind: other")
    assert not any("--every-kind" in line for line in about(NumpyHarness()))
    monkeypatch.setenv(EVERY_KIND, "1")
    assert not any("--every-kind" in line for line in about(Sampling()))


def test_sampled_kinds_are_kinds() -> None:
    class Lost(NumpyHarness):
        sampled_kinds = ("text2img", "nonesuch")

    with pytest.raises(TypeError, match="Lost samples kinds that it has not: nonesuch"):
        type("TestLost", (BackendSuite,), {"harness": Lost()})


def test_every_kind_is_an_option(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(EVERY_KIND, "")
    monkeypatch.delenv(EVERY_KIND)
    assert run("unicb.testing", "numpy", "--co", "-q", "--every-kind").returncode == 0
    assert os.environ[EVERY_KIND]


def test_missing_extra_is_told(tmp_path: Path) -> None:
    (tmp_path / "hypothesis.py").write_text("raise ImportError('not installed')")
    done = start("unicb.testing", "numpy", folder=tmp_path)
    assert done.returncode == 1
    assert "pip install 'unicb[testing]'" in done.stderr


@pytest.mark.skipif(find_spec("xdist") is None, reason="pytest-xdist is not installed")
def test_summary_is_the_same_from_processes_side_by_side(run: Run, tmp_path: Path) -> None:
    """Also where tests of one's own run beside the suite: they are in no group."""
    own = "class TestOwn:\n    def test_of_its_own(self): pass\n"
    (tmp_path / "test_own.py").write_text(own)
    chosen = ("-q", "-k", "registry or test_concat or test_of_its_own")
    alone = run("unicb.testing", "numpy", *chosen)
    beside = start("unicb.testing", "numpy", "test_own.py", *chosen, "-n", "2", folder=tmp_path)
    assert alone.returncode == beside.returncode == 0
    summary = re.compile(r"= unicb conformance =+\n(.*)\n(\d+) passed", re.DOTALL)
    (group_counts, passed), (same, passed_beside) = (
        summary.findall(done.stdout)[0] for done in (alone, beside)
    )
    assert "backend numpy: numpy 2." in group_counts
    assert re.findall(r"^(\w+) .* 0$", group_counts, re.M) == ["parts", "registry"]
    assert same == group_counts
    assert int(passed_beside) == int(passed) + 1
