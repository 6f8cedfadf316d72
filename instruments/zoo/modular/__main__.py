"""Run tiny modular pipelines with unicb and without, and write what came of it.

python -m zoo.modular                           all of them; writes the page
python -m zoo.modular WanModularPipeline ...    some of them; prints alone
"""

from __future__ import annotations

import argparse
import logging
import time
import warnings
from pathlib import Path

from zoo.framework import FRAMEWORKS
from zoo.modular.entries import modular_entries
from zoo.modular.measure import Outcomes, measure
from zoo.modular.report import write

DOCS = Path(__file__).parents[3] / "docs"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m zoo.modular", description=__doc__)
    parser.add_argument("classes", nargs="*", help="all, if none")
    parser.add_argument("--framework", choices=FRAMEWORKS, default="torch")
    parser.add_argument("--docs", type=Path, default=DOCS, help="where to write the page")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)  # blocks log the errors that they pass on
    fx = FRAMEWORKS[asked.framework]()
    found: dict[str, dict[str, Outcomes]] = {}
    for entry in modular_entries():
        if fx.name not in entry.frameworks or (asked.classes and entry.name not in asked.classes):
            continue
        began = time.monotonic()
        found[entry.title] = {} if entry.not_built else measure(entry, fx)
        print(f"{entry.title}  {time.monotonic() - began:.0f} s", flush=True)
        for case, outcomes in found[entry.title].items():
            said = ", ".join(f"{what} {verdict}" for what, verdict in outcomes.verdicts.items())
            print(f"    {case}: {said}", flush=True)
            for what, why in outcomes.why.items():
                if outcomes.verdicts[what] in ("wrong", "failed"):
                    print(f"        {what}: {why}", flush=True)
    if not asked.classes:
        write(found, fx, asked.docs)
    bad = ("wrong", "failed")
    every = [x for cases in found.values() for one in cases.values() for x in one.verdicts.values()]
    return int(any(verdict in bad for verdict in every))


if __name__ == "__main__":
    raise SystemExit(main())
