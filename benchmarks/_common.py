"""Give all benchmarks what they share: fair repetitions, medians with their spread, and a result as
JSON."""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import features

FRAMEWORKS = ("torch", "mindspore")
RESULTS = Path(__file__).parents[1] / "docs" / "benchmarks"
LIBRARIES = {
    "torch": ("torch", "diffusers"),
    "mindspore": ("mindspore", "mindone"),
    "onnx": ("onnxruntime", "optimum-onnx", "torch", "diffusers"),
    "openvino": ("openvino", "optimum-intel", "torch", "diffusers"),
}
T = TypeVar("T")

#: What else the machine was doing when the script began: programs that ran, on average of a minute.
LOAD = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else None


def parser(
    description: str | None, frameworks: Sequence[str] = FRAMEWORKS, repetitions: int | None = 20
) -> Any:
    """Make an argument parser with the options that every script has.

    ``--out`` is the folder for the result; ``--repetitions`` the number of rounds, by default
    ``repetitions``; None: there are no rounds.
    """
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--framework", choices=frameworks, default="torch")
    if repetitions is not None:
        made.add_argument(
            "--repetitions", type=positive, default=repetitions, help=f"default: {repetitions}"
        )
    made.add_argument(
        "--out", type=Path, default=RESULTS, help="folder of the JSON; default: docs/benchmarks"
    )
    return made


def positive(text: str) -> int:
    """Read a whole number from 1, for arguments of scripts."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


@dataclass(frozen=True)
class Figure:
    """One measured quantity: its median over the rounds, and the quartiles around that.

    Attributes:
        case: under which circumstances.
        name: what was measured.
        unit: ``"ratio"``, ``"%"``, ``"ms"``, ``"count"``, …
        median: the middle of the rounds,
        lower: a quarter of them are below this,
        upper: a quarter above this.
        rounds: how many there were.
        at_most: the target; None where there is none.
    """

    case: str
    name: str
    unit: str
    median: float
    lower: float
    upper: float
    rounds: int
    at_most: float | None = None


def figure(
    case: str, name: str, unit: str, values: Iterable[float], at_most: float | None = None
) -> Figure:
    """Make the figure of one value for each round."""
    found = np.asarray(list(values), dtype=np.float64)
    lower, median, upper = np.percentile(found, [25, 50, 75])
    return Figure(case, name, unit, float(median), float(lower), float(upper), len(found), at_most)


def interleaved(
    contestants: Mapping[str, Callable[[], T]],
    repetitions: int,
    label: str,
    warm_up: Callable[[], object] | None = None,
) -> dict[str, list[T]]:
    """Run all contestants in each round, so that whatever slows the machine slows them alike.

    A first round is not counted: it warms caches. Each round begins with another contestant.

    Args:
        contestants: what to run, by name.
        repetitions: how many rounds count.
        label: for the line that tells how far it is.
        warm_up: what warms the caches in place of a round, where a round takes long.

    Returns:
        What each returned, by round.
    """
    names = list(contestants)
    found: dict[str, list[T]] = {name: [] for name in names}
    if warm_up is not None:
        warm_up()
    else:
        for name in names:
            contestants[name]()
    with _frozen():
        for done in range(repetitions):
            progress(label, done, repetitions)
            turn = done % len(names)
            for name in names[turn:] + names[:turn]:
                gc.collect()
                found[name].append(contestants[name]())
        progress(label, repetitions, repetitions)
    return found


@contextmanager
def _frozen() -> Iterator[None]:
    """Have each collection go by what there is already: the frameworks' many objects."""
    # Tests freeze all that is there before the first, and want it to stay so. Some versions of
    # Python freeze a few hundred objects when they start.
    is_frozen = gc.get_freeze_count() > 50_000
    if not is_frozen:
        gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        if not is_frozen:
            gc.unfreeze()


def progress(label: str, done: int, of: int) -> None:
    """Tell how far it is, on one line of standard error."""
    print(f"\r{label}: {done} of {of}", end="\n" if done == of else "", file=sys.stderr, flush=True)


def machine() -> dict[str, str]:
    """Say what the figures depend on and what may be said of a machine: no names, no addresses."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found = {"processor": _processor(), "cores": str(cores), "system": platform.system()}
    return found if LOAD is None else {**found, "load at the start": LOAD}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    found: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        found.setdefault(name.strip(), value.strip())
    name = found.get("model name", platform.machine())
    numbers = ("cpu family", "model", "stepping")
    # A virtual machine may tell its kind by numbers alone.
    listed = ", ".join(f"{number} {found[number]}" for number in numbers if number in found)
    return f"{name} ({listed})" if listed else name


def versions(framework: str) -> dict[str, str]:
    """Return the versions of what takes part."""
    found = {"python": platform.python_version()}
    for name in ("unicb", *LIBRARIES.get(framework, ()), "numpy", "pillow"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    # Which library compresses PNG files makes more difference than any option.
    for name in ("zlib_ng", "zlib"):
        if features.check_feature(name) if name == "zlib_ng" else features.check_codec(name):
            number = features.version(name)
            found[name.replace("_", "-")] = str(number)
            break
    return found


def write(
    out: Path | None,
    name: str,
    title: str,
    method: str,
    framework: str,
    settings: Mapping[str, Any],
    figures: Sequence[Figure],
    *,
    hardware: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
    picture: tuple[str, str] | None = None,
) -> None:
    """Write ``<name>-<framework>.json`` into the folder ``out``, and print the figures.

    Args:
        out: the folder; it is made. None: print only.
        name: the script's.
        title: what the page calls it.
        method: how it was measured, as Markdown.
        framework: on which it ran.
        settings: the arguments that figures depend on.
        figures: what was measured.
        hardware: more about the machine, such as its GPU.
        notes: what happened that figures do not tell, or what they show.
        picture: what it shows, and its path from the page.
    """
    result = {
        "benchmark": name,
        "title": title,
        "method": method,
        "framework": framework,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {**machine(), **(hardware or {})},
        "versions": versions(framework),
        "settings": dict(settings),
        "figures": [asdict(item) for item in figures],
        "notes": list(notes),
        "picture": picture,
    }
    for item in figures:
        target = "" if item.at_most is None else f", target at most {item.at_most:g}"
        spread = f"{item.lower:.4g} to {item.upper:.4g}"
        print(f"{item.case}: {item.name}: {item.median:.4g} {item.unit} ({spread}{target})")
    for note in notes:
        print(note)
    if out is None:
        return
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}-{framework}.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"written: {path}")
