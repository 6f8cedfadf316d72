"""``python -m unicb``: examine an installation, a checkpoint, or a recorded run.

Exit codes of all commands: 0: all is well; 1: something is not, as each command's help says; 2: the
command line is wrong, or something that it names cannot be found or read.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Protocol, cast

from unicb.errors import UnicbError

_COMMANDS = {
    "doctor": "say which backends load, and what to do about those that do not",
    "explain": "say what works on a checkpoint, or on a class of pipelines",
    "preview": "show a recorded trajectory as a contact sheet or an animation",
    "testing": "run the conformance suite on a backend (python -m unicb.testing)",
}


class _Command(Protocol):
    """A module that defines one command."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, options: argparse.Namespace) -> int:
        """Returns the exit code."""


def main(arguments: Sequence[str]) -> int:
    """Run a command; returns its exit code."""
    if arguments[:1] == ["testing"]:
        return _testing(list(arguments[1:]))
    parser = argparse.ArgumentParser(
        prog="python -m unicb", description=__doc__, formatter_class=_AsWritten, allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    chosen = next((word for word in arguments if word in _COMMANDS), None)
    for name, does in _COMMANDS.items():
        made = commands.add_parser(name, help=does, formatter_class=_AsWritten, allow_abbrev=False)
        if name == chosen:  # only the chosen command is imported
            module = _module(name)
            made.description = module.__doc__
            module.add_arguments(made)
    options = parser.parse_args(arguments)
    try:
        return _module(options.command).run(options)
    except (UnicbError, OSError, ValueError) as error:
        print(f"unicb {options.command}: {error}", file=sys.stderr)
        return 2


class _AsWritten(argparse.RawDescriptionHelpFormatter):
    """A formatter that keeps the line breaks of descriptions."""


def _module(name: str) -> _Command:
    from importlib import import_module

    return cast(_Command, import_module(f"unicb._cli.{name}"))


def _testing(arguments: list[str]) -> int:
    try:
        from unicb.testing.__main__ import main as test
    except ImportError as error:  # its message says what to install
        print(f"unicb testing: {error}", file=sys.stderr)
        return 2
    return test(arguments)
