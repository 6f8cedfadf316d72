"""Have environments share the files of what is large in them, by hard links.

PyTorch takes 0.7 GB and MindSpore 2.3 GB in each environment that has it, of which nox makes a
dozen. pip writes them anew each time. It never writes into a file that is there: it puts a new one
in its place, so that no environment changes another's.
"""

from __future__ import annotations

import os
from importlib.metadata import Distribution
from pathlib import Path


def share_files(name: str, donor: Path, taker: Path) -> None:
    """Link a distribution's files from one folder of packages into another, if the first has it.

    What could not be linked whole is no distribution to pip, which installs it as if nothing were
    there.

    Args:
        name: the distribution's, such as ``"torch"``.
        donor: the ``site-packages`` that has it.
        taker: that of another environment, on the same disk, which does not have it.
    """
    found = next(iter(Distribution.discover(name=name, path=[str(donor)])), None)
    if found is None or found.files is None:
        return
    inside = [file for file in found.files if ".." not in file.parts]  # not programs
    # pip takes a package for installed if these are there: so they come last.
    inside.sort(key=lambda file: file.parts[0].endswith(".dist-info"))
    try:
        for file in inside:
            if file.suffix != ".pyc":
                (taker / file).parent.mkdir(parents=True, exist_ok=True)
                os.link(donor / file, taker / file)
    except OSError:  # this disk has no such links, or something lies there already
        return
