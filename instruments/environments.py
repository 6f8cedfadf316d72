"""Make the environments of several sessions of nox side by side.

    environments.py FOLDER SESSION...

pip uses one core, and waits for the network for a good part of the time. What cannot be made is
left to the session itself, which says why.
"""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

#: How many are made at once: few enough that a small machine has memory and cores for them.
AT_ONCE = 3
#: Set in the processes that make them: the wheel that they install has been built.
WHEEL_IS_BUILT = "UNICB_WHEEL_IS_BUILT"


def environment_of(folder: Path, session: str) -> Path:
    """Return the folder where nox has the environment of a session."""
    return folder / session.replace("(", "-").rstrip(")")


def make_environment(folder: Path, session: str) -> bool:
    """Have nox do what the session does before its first command; returns whether it could."""
    nox = [sys.executable, "-m", "nox", "--envdir", str(folder), "--install-only", "-s", session]
    env = {**os.environ, WHEEL_IS_BUILT: "1"}
    return subprocess.run(nox, env=env, capture_output=True).returncode == 0


def main(folder: Path, sessions: list[str]) -> None:
    """Make those that are not there yet."""
    missing = [name for name in sessions if not environment_of(folder, name).exists()]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        outcomes = pool.map(lambda name: make_environment(folder, name), missing)
        for name, made in zip(missing, outcomes, strict=True):
            print(f"{name}: {'made' if made else 'not made, its session will say why'}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
