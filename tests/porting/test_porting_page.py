"""docs/porting.md, followed to the letter in a fresh environment."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from write_checks import PAGE, PAGES, ROOT, written

from unicb import Backend, TensorOps
from unicb.testing import Harness

FENCED = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)

MARK = "=== commands of block"

STRICT = """
from unicb.testing import BackendSuite
from unicb_numpy.harness import NumpyHarness

class MyHarness(NumpyHarness):
{fragment}

class TestMine(BackendSuite):
    harness = MyHarness()
"""


@dataclass(frozen=True)
class Block:
    """A block of code on the page: commands (sh), what they print (text), or a file to write."""

    language: str
    title: str | None
    text: str


@pytest.fixture(scope="module")
def page() -> str:
    return PAGE.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def blocks(page: str) -> list[Block]:
    return [Block(*match.groups()) for match in FENCED.finditer(page)]


def script(blocks: list[Block]) -> str:
    """One shell script that runs the commands and writes the files, in the page's order."""
    lines = ["set -eu"]
    for index, block in enumerate(blocks):
        if block.title:
            lines.append(f"cat > {block.title} <<'END OF FILE'\n{block.text}END OF FILE")
        elif block.language == "sh":
            lines.append(f"echo '{MARK} {index}'\n{block.text}")
    return "\n".join(lines)


def environment() -> dict[str, str]:
    """Ours, without what would tie the page's Python to ours, and with the versions we pin."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PY", "VIRTUAL_ENV"))}
    # Where nox has downloaded what the page installs, no network is needed.
    wheels = os.environ.get("UNICB_PORTING_WHEELS")
    return {
        **kept,
        **({"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": wheels} if wheels else {}),
        "PIP_NO_COMPILE": "1",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), kept["PATH"]]),
        "PIP_CONSTRAINT": str(ROOT / "constraints" / "third-party.txt"),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }


def test_commands_do_what_the_page_says(blocks: list[Block], tmp_path: Path) -> None:
    (tmp_path / "unicb").symlink_to(ROOT)
    done = subprocess.run(
        ["bash", "-c", script(blocks)],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    for index, block in enumerate(blocks):
        if block.language == "text":
            printed = done.stdout.partition(f"{MARK} {index - 1}\n")[2].partition(MARK)[0]
            assert printed_lines(block).search(printed), f"not as the page says:\n{printed}"
    assert (tmp_path / "mine" / "report.html").is_file()


def printed_lines(block: Block) -> re.Pattern[str]:
    """The block's lines, among others, in that order; an ellipsis stands for anything."""
    lines = [
        re.sub(r"(\\ )+", r"\\s+", re.escape(line)).replace("…", ".+")
        for line in block.text.splitlines()
    ]
    return re.compile("".join(rf"^{line}$[\s\S]*?" for line in lines), re.MULTILINE)


def test_every_block_is_run_written_or_compared(blocks: list[Block]) -> None:
    [fragment] = [b for b in blocks if b.title is None and b.language not in ("sh", "text")]
    assert "expected_failures" in fragment.text
    for before, block in pairwise(blocks):
        assert block.language != "text" or before.language == "sh"


def test_expected_failures_are_as_strict_as_the_page_says(
    blocks: list[Block], tmp_path: Path
) -> None:
    [fragment] = [block.text for block in blocks if "expected_failures =" in block.text]
    (tmp_path / "test_mine.py").write_text(STRICT.format(fragment=fragment), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-k", "clamp", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "[XPASS(strict)] MyFramework 2.1" in done.stdout


@pytest.mark.parametrize("contract", [Backend, TensorOps, Harness])
def test_every_member_is_in_a_table(page: str, contract: type) -> None:
    members = {*vars(contract), *contract.__annotations__}
    public = {name for name in members if not name.startswith("_")}
    in_tables = set(re.findall(r"`(\w+)", "\n".join(re.findall(r"^\| (.*?) \|", page, re.M))))
    assert public - in_tables == set()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_list_of_checks_is_up_to_date(path: Path) -> None:
    page = path.read_text(encoding="utf-8")
    assert page == written(page), "run: python tests/porting/write_checks.py"


def test_example_has_the_files_of_the_reference() -> None:
    folders = ROOT / "backends" / "unicb_numpy", ROOT / "examples/third_party_backend/unicb_jax"
    ours, theirs = ({path.name for path in folder.glob("*.py")} for folder in folders)
    assert ours == theirs
