"""``python record.py FILE``: run the suite on every mutant, and write what failed to FILE.

Each mutant is held against the checks that name it; where ``UNICB_TESTS_MATRIX`` is set, against
all others, too.

In a process of its own: the mutants change unicb for the whole process, and Hypothesis is told
not to look for the simplest example of each failure, which nobody reads.
"""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest


class Recorder:
    """Notes every check's outcome."""

    def __init__(self) -> None:
        self.outcomes: list[dict[str, Any]] = []

    def pytest_configure(self) -> None:
        from hypothesis import Phase, settings

        phases = [Phase.explicit, Phase.generate]
        settings.register_profile("mutants", phases=phases, report_multiple_bugs=False)
        settings.load_profile("mutants")

    def pytest_pycollect_makeitem(self, collector: Any, name: str) -> list[Any] | None:
        """Collect nothing for a check that is left out; leave the rest to pytest."""
        return [] if name in getattr(collector.obj, "left_out", ()) else None

    def pytest_runtest_makereport(self, item: Any, call: pytest.CallInfo[None]) -> None:
        error = None if call.excinfo is None else call.excinfo.value
        if call.when != "call" and error is None:
            return
        self.outcomes.append(
            {
                "mutant": item.cls.mutant.name,
                "check": item.originalname,
                "when": call.when,
                "error": error and _kinds(error),
                "message": error and traceback.format_exception_only(error)[-1].strip(),
                "line": error and _line_of_check(error),
            }
        )


def _kinds(error: BaseException) -> list[str]:
    """Names of the classes that the error is of. pytest's own are failed expectations."""
    names = [kind.__name__ for kind in type(error).__mro__]
    return [*names, "AssertionError"] if isinstance(error, pytest.fail.Exception) else names


def _line_of_check(error: BaseException) -> str | None:
    """Where in the suite it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    inside = [frame for frame in frames if Path(frame.filename).parent.name == "testing"]
    return f"{Path(inside[-1].filename).name}:{inside[-1].lineno}" if inside else None


def main(file: str) -> int:
    recorder = Recorder()
    suites = str(Path(__file__).with_name("mutated.py"))
    quiet = ["-q", "--tb=no", "--no-header", "--noconftest", "-p", "no:cacheprovider"]
    code = int(pytest.main([suites, *quiet, "-r", "E"], [recorder]))
    Path(file).write_text(json.dumps(recorder.outcomes))
    # That checks fail is what this is about.
    return 0 if code == pytest.ExitCode.TESTS_FAILED else code or 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
