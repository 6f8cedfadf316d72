"""``python -m unicb.testing NAME [pytest arguments]``: run the suite on an installed backend."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from unicb.backend import backend_names
from unicb.errors import UnicbError
from unicb.testing import load_harness

# Other people's plug-ins, imported before pytest was up.
_QUIET = ("-W", "ignore::pytest.PytestAssertRewriteWarning")


class _Outcomes:
    """Counts what ran: a run in which nothing did must not look like success."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.passed = 0

    def pytest_report_header(self) -> str:
        return self.title

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.passed += report.when == "call" and report.passed


def main(arguments: list[str]) -> int:
    if not arguments or arguments[0].startswith("-"):
        print(f"usage: python -m unicb.testing NAME [pytest arguments]\n\n{__doc__}")
        print(f"\nInstalled backends: {', '.join(backend_names())}")
        return 0 if arguments in (["-h"], ["--help"]) else 2
    name, *rest = arguments
    try:
        harness = load_harness(name)
    except UnicbError as error:
        print(f"unicb.testing: {error}", file=sys.stderr)
        if error.__cause__ is not None:
            print(f"caused by {type(error.__cause__).__name__}: {error.__cause__}", file=sys.stderr)
        return 2
    versions = ", ".join(f"{key} {value}" for key, value in harness.backend.versions().items())
    outcomes = _Outcomes(f"unicb conformance suite, backend {name}: {versions}")
    os.environ["UNICB_TESTING_BACKEND"] = name
    suite = str(Path(__file__).with_name("selected.py"))
    code = int(pytest.main([suite, "-p", "no:cacheprovider", *_QUIET, *rest], [outcomes]))
    listing = any(argument.startswith(("--co", "--help", "--fixtures")) for argument in rest)
    if code == 0 and not outcomes.passed and not listing:
        print("unicb.testing: no check passed; a run that checks nothing fails", file=sys.stderr)
        return 1
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
