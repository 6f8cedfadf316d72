"""Tell which Pythons can be started on this machine."""

from __future__ import annotations

import subprocess
from functools import cache

_PRINT_VERSION = "import sys; print('%d.%d' % sys.version_info[:2])"


@cache
def is_installed(version: str) -> bool:
    """Return whether this Python, such as "3.12", is on the path and starts.

    To find a file of its name is not enough: a version manager puts one there for every Python
    that it has, and it fails where that is not the one in use.
    """
    # The second is how Windows' launcher is asked.
    return any(
        _prints(version, [*command, "-I", "-S", "-c", _PRINT_VERSION])
        for command in ([f"python{version}"], ["py", f"-{version}"])
    )


def _prints(version: str, command: list[str]) -> bool:
    try:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    except OSError:
        return False
    return done.returncode == 0 and done.stdout.strip() == version
