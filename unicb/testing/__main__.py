"""Run the conformance suite on an installed backend.

    python -m unicb.testing NAME [--report FILE.html] [--every-kind] [pytest arguments]

NAME is the name of an entry point in the group unicb.backends. With --report, the result is also
written as a page (needs pytest-html, which comes with unicb[testing]). With --every-kind, every
check is made on every kind of pipeline, where the harness has it made on some to save time. All
other arguments go to pytest: -k cut, -x, --tb=short; and -n 2, where pytest-xdist is installed.
"""

from __future__ import annotations

import argparse
import os
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from unicb.backend import backend_names, get_backend
from unicb.errors import UnicbError
from unicb.testing import load_harness
from unicb.testing._summary import Summary
from unicb.testing.harness import EVERY_KIND

_PLUGINS = ("-p", "no:cacheprovider", "-p", "unicb.testing._groups")
# Third-party plug-ins that were imported before pytest started.
_QUIET = ("-W", "ignore::pytest.PytestAssertRewriteWarning")


def main(arguments: list[str]) -> int:
    """Run the suite, and return pytest's exit code; 1 if nothing passed; 2 if the backend cannot be
    loaded."""
    parser = argparse.ArgumentParser(
        prog="python -m unicb.testing",
        description=__doc__,
        epilog=f"Installed backends: {', '.join(backend_names())}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--report", metavar="FILE.html")
    parser.add_argument("--every-kind", action="store_true")
    options, rest = parser.parse_known_args(arguments)
    if options.report and find_spec("pytest_html") is None:
        parser.error("--report needs pytest-html: pip install 'unicb[testing]'")
    if options.every_kind:
        os.environ[EVERY_KIND] = "1"
    try:
        get_backend(options.name)
        # If other processes run the checks, this one need not spend seconds on importing a
        # framework.
        summary = Summary(None if _is_distributed(rest) else load_harness(options.name))
    except UnicbError as error:
        return _refuse(error)
    return _run(options.name, summary, [*_report(options.report), *rest])


def _run(name: str, summary: Summary, arguments: list[str]) -> int:
    os.environ["UNICB_TESTING_BACKEND"] = name
    suite = str(Path(__file__).with_name("selected.py"))
    code = int(pytest.main([suite, *_PLUGINS, *_QUIET, *arguments], [summary]))
    listing = any(word.startswith(("--co", "--help", "--fixtures")) for word in arguments)
    if code == 0 and not summary.passed and not listing:
        print("unicb.testing: no check passed; a run that checks nothing fails", file=sys.stderr)
        return 1
    return code


def _is_distributed(arguments: list[str]) -> bool:
    """Return whether pytest-xdist is asked to run the checks in other processes."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-n", "--numprocesses", default="0")
    return bool(parser.parse_known_args(arguments)[0].numprocesses != "0")


def _report(path: str | None) -> list[str]:
    return [f"--html={path}", "--self-contained-html"] if path else []


def _refuse(error: UnicbError) -> int:
    print(f"unicb.testing: {error}", file=sys.stderr)
    cause = error.__cause__
    while cause is not None:
        print(f"caused by {type(cause).__name__}: {cause}", file=sys.stderr)
        cause = cause.__cause__
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
