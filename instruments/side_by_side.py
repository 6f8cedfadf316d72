"""Run sessions of nox side by side, two at once, each in a process of its own.

These are sessions that wait a good part of their time: for each other's processes, for a server, a
kernel, or a browser.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

from session_table import Row, read_rows

#: How many run at once: as many as a small machine has cores.
AT_ONCE = 2
#: Set in the processes that run them: the file for the rows that they would print.
ROWS_FILE = "UNICB_SESSION_ROWS"


def run_side_by_side(
    folder: Path, sessions: Sequence[str], env: Mapping[str, str], say: Callable[[str], None]
) -> list[Row]:
    """Run sessions, and return a row for each, in the order given.

    Args:
        folder: where nox has its environments.
        sessions: their names. Those that take longest come first.
        env: what is added to the environment of their processes.
        say: is given each line that they print, which begins with the session's name.
    """
    begun: list[subprocess.Popen[str]] = []

    def run(session: str, rows: Path) -> Row:
        nox = [sys.executable, "-m", "nox", "--envdir", str(folder), "-s", session]
        process = subprocess.Popen(
            nox,
            env={**os.environ, **env, ROWS_FILE: str(rows)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        begun.append(process)
        assert process.stdout is not None
        for line in process.stdout:
            say(f"{session}: {line.rstrip()}")
        code = process.wait()
        # What failed before its session began has written no row, or that of a session before.
        row = next((row for row in read_rows(rows) if row.session == session), Row(session))
        if code != 0 and row.outcome in ("running", "passed"):
            row.outcome = "failed"
        return row

    with TemporaryDirectory() as kept, ThreadPoolExecutor(AT_ONCE) as pool:
        files = [Path(kept, f"{i}.json") for i in range(len(sessions))]
        ending = [pool.submit(run, *each) for each in zip(sessions, files, strict=True)]
        try:
            return [each.result() for each in ending]
        finally:
            for each in ending:
                each.cancel()
            for process in begun:
                if process.poll() is None:
                    process.terminate()
