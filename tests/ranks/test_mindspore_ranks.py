"""Two workers of msrun that share runs, on MindSpore's CPU; mindspore_cases.py has what they do."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from launched import asked_for, names_of, read, what

SCRIPT = Path(__file__).with_name("mindspore_cases.py")
CASES = names_of(SCRIPT, "case")
#: Seconds after which the workers are given up.
LONGEST = 400.0


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


@pytest.fixture(scope="module")
def workers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("workers")
    msrun = shutil.which("msrun")
    assert msrun is not None, "msrun, which comes with mindspore, is not on the path"
    command = [msrun, "--worker_num=2", "--local_worker_num=2", f"--master_port={free_port()}"]
    command += ["--join=True", f"--log_dir={folder / 'log'}", str(SCRIPT), str(folder)]
    done = subprocess.run(
        [*command, *asked_for(request, CASES)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": _path(), "GLOG_v": "3"},
        timeout=LONGEST,
        capture_output=True,
        text=True,
    )
    said = [read(folder / f"rank-{rank}.jsonl") for rank in range(2)]
    assert all(said), done.stdout[-3000:] + done.stderr[-3000:]
    return said


def _path() -> str:
    """Of the modules beside this one, and of what this process finds otherwise."""
    given = [str(Path(part).resolve()) for part in os.environ.get("PYTHONPATH", "").split(":")]
    return os.pathsep.join([str(SCRIPT.parent), *given])


@pytest.mark.parametrize("case", CASES)
def test_two_workers(workers: list[dict[str, Any]], case: str) -> None:
    found = [what(each, case) for each in workers]
    assert found[0] == found[1]


def test_there_are_cases() -> None:
    assert len(CASES) > 5
