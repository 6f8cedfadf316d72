"""Runs scripts in this process, which has the framework: to import one anew takes 10 s."""

from __future__ import annotations

import io
import os
import runpy
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple
from unittest import mock


class Done(NamedTuple):
    """What a script has printed, and its exit status."""

    stdout: str
    stderr: str
    returncode: int


def run_script(script: Path, *arguments: str, folder: Path | None = None) -> Done:
    """Do what ``python script arguments`` does, and leave no trace of it in this process.

    Args:
        script: is run as ``__main__``, from its beginning to its end.
        arguments: of the command line.
        folder: where it runs; here, if it is left out.
    """
    out, err = io.StringIO(), io.StringIO()
    before, path = set(sys.modules), list(sys.path)
    with (
        mock.patch.object(sys, "argv", [str(script), *arguments]),
        mock.patch.object(sys, "path", [str(script.parent), *path]),
        mock.patch.dict(os.environ),
        chdir(folder or Path.cwd()),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            runpy.run_path(str(script), run_name="__main__")
            code: object = 0
        except SystemExit as exit_:
            code = exit_.code
        finally:
            _forget({*sys.modules} - before, {*sys.path} - {*path})
    if isinstance(code, str):
        print(code, file=err)
    status = code if isinstance(code, int) else int(code is not None)
    return Done(out.getvalue(), err.getvalue(), status)


def _forget(modules: set[str], folders: set[str]) -> None:
    """Forget those modules that came from these folders: another script may have its own."""
    for name in modules:
        file = getattr(sys.modules[name], "__file__", None)
        if file and str(Path(file).parent) in folders:
            del sys.modules[name]
