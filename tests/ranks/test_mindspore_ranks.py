"""Two workers of msrun that share runs, on MindSpore's CPU; mindspore_cases.py has what they do."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
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
    launched = subprocess.Popen(
        [*command, *asked_for(request, CASES)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": _path(), "GLOG_v": "3"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        _give_way(launched)
        printed, _ = launched.communicate(timeout=LONGEST)
    finally:
        launched.kill()
    said = [read(folder / f"rank-{rank}.jsonl") for rank in range(2)]
    assert all(said), printed[-3000:]
    return said


def _give_way(launched: subprocess.Popen[str]) -> None:
    """Let msrun, and not what it has started, run only where nobody else wants the core: it asks
    all the time, without a pause, whether its workers have ended."""
    # Not before it has started the scheduler and two workers, which would inherit it.
    while launched.poll() is None and len(psutil.Process(launched.pid).children()) < 3:
        time.sleep(0.1)
    if launched.poll() is None and hasattr(os, "sched_setscheduler"):
        os.sched_setscheduler(launched.pid, os.SCHED_IDLE, os.sched_param(0))


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
