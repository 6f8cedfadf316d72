"""Measure what importing unicb takes, beside the imports that its users have anyway.

    python benchmarks/import_cost.py --framework torch

Starts one Python after another, each of which imports one thing and times it; writes
docs/benchmarks/import_cost-<framework>.json. Takes minutes with a framework, most of which are the
framework's own; with --framework none, half a minute.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from _common import FRAMEWORKS, LIBRARIES, Figure, figure, interleaved, parser, write

TITLE = "What importing unicb takes"
METHOD = """\
Each import in a Python of its own, timed there from before the statement to after it; all of them
in turn, in every round, with compiled files in place (as they are after the first import of an
installed package). `import unicb` loads what is used when it is used: so there are also the times
of a line that loads what it names, and of all public names.

- **after numpy and PIL** is what the line takes where these are imported already.
- **after the framework** is what it takes where PyTorch and diffusers, or MindSpore and mindone,
  are: they share much of the standard library with unicb.
- the last table is what `python -X importtime` tells of `from unicb import CFGCutoff, Preview,
  bind` after numpy and PIL, in milliseconds and with that option's own cost: the modules that take
  longest **themselves**, and what they take **in all**, with those that they are first to import.
"""
AT_MOST_MS = 25.0
BASE = "import numpy, PIL.Image"
USUAL = "from unicb import CFGCutoff, Preview, bind"
LINES = {"import unicb": AT_MOST_MS, USUAL: None, "from unicb import *": None}
LONGEST = 20
CASES = ("themselves", "in all")

TIMED = """\
import sys, time
{before}
began = time.perf_counter()
{line}
print((time.perf_counter() - began) * 1e3)
"""


def python(arguments: Sequence[str], compiled: str) -> subprocess.CompletedProcess[str]:
    """Run a Python whose compiled files are in the folder ``compiled``, and are written there."""
    env = {**os.environ, "PYTHONPYCACHEPREFIX": compiled}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    # -P: not the sources in the folder that this runs in, but what is installed.
    command = [sys.executable, "-P", *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"python {' '.join(arguments)} failed:\n{done.stderr}")
    return done


def milliseconds(before: str, line: str, compiled: str) -> float:
    """Measure how long ``line`` takes in a new Python, after ``before``."""
    return float(
        python(["-c", TIMED.format(before=before, line=line)], compiled).stdout.split()[-1]
    )


def import_times(line: str, compiled: str) -> dict[str, tuple[float, float]]:
    """Return the milliseconds by module, itself and in all, of those that ``line`` imports after
    numpy and PIL."""
    mark = "import this_is_no_module"
    program = (
        f"{BASE}\ntry: {mark}\nexcept ImportError: pass\nprint('mark', file=sys.stderr)\n{line}"
    )
    log = python(["-X", "importtime", "-c", f"import sys\n{program}"], compiled).stderr
    found = {}
    for row in log.partition("\nmark\n")[2].splitlines():
        itself, in_all, name = row.removeprefix("import time:").split("|")
        found[name.strip()] = (int(itself) / 1e3, int(in_all) / 1e3)
    return found


def longest(rounds: Sequence[Mapping[str, tuple[float, float]]]) -> list[Figure]:
    """Return the figures of the modules that take longest, from the times of each round."""
    by_name: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for times in rounds:
        for name, pair in times.items():
            by_name[name].append(pair)
    made = {
        name: [
            figure(case, name, "ms of importtime", (pair[part] for pair in pairs))
            for part, case in enumerate(CASES)
        ]
        for name, pairs in by_name.items()
    }
    order = sorted(made, key=lambda name: -made[name][0].median)
    return [item for name in order[:LONGEST] for item in made[name]]


def main() -> int:
    made = parser(__doc__, ("none", *FRAMEWORKS))
    options = made.parse_args()
    framework = options.framework
    cases = {"after numpy and PIL": BASE}
    if framework != "none":
        # mindone's name for diffusers.
        library = {"torch": "diffusers", "mindspore": "mindone.diffusers"}[framework]
        cases["after the framework"] = f"{BASE}\nimport {LIBRARIES[framework][0]}, {library}"
    with tempfile.TemporaryDirectory() as compiled:
        timed: dict[str, Callable[[], float]] = {
            f"{case}: {line}": partial(milliseconds, before, line, compiled)
            for case, before in cases.items()
            for line in LINES
        }
        base = partial(milliseconds, "", BASE, compiled)
        rounds = interleaved({"base": base, **timed}, options.repetitions, "imports")
        listing = {"listing": partial(import_times, USUAL, compiled)}
        times = interleaved(listing, options.repetitions, "python -X importtime")["listing"]
    figures = [figure("by itself", BASE, "ms", rounds["base"])]
    figures += [
        figure(case, line, "ms", rounds[f"{case}: {line}"], at_most)
        for case in cases
        for line, at_most in LINES.items()
    ]
    figures += longest(times)
    settings = {"rounds": options.repetitions}
    write(options.out, "import_cost", TITLE, METHOD, framework, settings, figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
