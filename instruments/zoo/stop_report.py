"""What the page about coverage says of stops, from what was measured on each framework."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from zoo.verdicts import verdicts

COLUMNS = ["exact", "otherwise", "refused", "wrong", "failed", "not built"]
INTRODUCTION = """\
Made by `nox -s coverage-stops`; not written by hand. The same tiny pipelines were interrupted after
their second step, and cancelled there, and before their denoiser was first called. The reference of
the interrupted run is one without unicb, in which a plain callback puts the latents of that step in
place of those of every later one, so that the pipeline itself decodes them.

- **exact**: after the stop, no denoiser is called; what the pipeline returns has the same bits as
  what the reference returns (on MindSpore, to within 1e-5, or one of 255). Cancelled, the call
  raises, with the latents of that step, and nothing is decoded; cancelled at once, no denoiser is
  called at all. Each of these leaves the models and the scheduler without a trace, and a plain run
  afterwards is the same as one before.
- **otherwise**: the same, but more is decoded than the latents of the stop; what, is said below.
  Where the loop reads an interrupt flag, it is what the pipeline makes of it if one sets the flag
  oneself.
- **refused**: `bind` refuses to interrupt it; to cancel it is as above.

Loops that read the pipeline's interrupt flag skip the steps that are left. The others *run out*:
models and scheduler answer as in the last step, and nothing is computed.
"""


def totals(found: dict[str, Any], libraries: dict[str, str]) -> Iterator[str]:
    """The headline, and the table of verdicts."""
    for name, measured in found.items():
        verdict = verdicts(measured["rows"], COLUMNS)
        ways = {row["class"]: row["way"] for row in reversed(measured["rows"])}  # not of variants
        works = [kind for kind, v in verdict.items() if v in ("exact", "otherwise")]
        # What bind says of a class that no entry builds tells nothing of its runs.
        ran = {row["class"] for row in measured["rows"] if row["case"]}
        cancels = [kind for kind in works if kind in ran]
        cancels += [kind for kind, v in verdict.items() if v == "refused" and kind in ran]
        out = sum(ways[kind] == "runs out" for kind in works)
        exact = sum(v == "exact" for v in verdict.values())
        yield (
            f"{libraries[name]}: interrupt works on {len(works)} of {len(verdict)} classes that "
            f"call a callback ({len(works) - out} read a flag, {out} run out), on {exact} of them "
            f"with the latents of the stop to the last bit; cancel works on {len(cancels)}."
        )
        yield ""
    yield "| classes that call a step-end callback | " + " | ".join((*COLUMNS, "in all")) + " |"
    yield "|---|" + "---:|" * (len(COLUMNS) + 1)
    for measured in found.values():
        verdict = verdicts(measured["rows"], COLUMNS)
        counts = [sum(v == column for v in verdict.values()) for column in COLUMNS]
        versions = ", ".join(f"{key} {value}" for key, value in measured["versions"].items())
        numbers = " | ".join(str(n) for n in (*counts, sum(counts)))
        yield f"| {versions} ({measured['date']}) | {numbers} |"
    yield ""


def framework(measured: dict[str, Any]) -> Iterator[str]:
    """The table of one framework's classes, and what is not exact, and why."""
    rows = [row for row in measured["rows"] if row["verdict"] != "impossible"]
    yield "| class | loop | stop |"
    yield "|---|---|---|"
    for title in sorted(dict.fromkeys(map(_title, rows))):
        row = next(row for row in rows if _title(row) == title)
        yield f"| {title} | {row['way'] or '-'} | {row['verdict']} |"
    yield ""
    for verdict in COLUMNS[1:]:
        told = {_title(row): " ".join(row["why"].split()) for row in rows if _is(row, verdict)}
        if told:
            yield f"### {verdict.capitalize()}, and why"
            yield ""
            yield from (f"- {title}: {why}" for title, why in sorted(told.items()))
            yield ""


def _is(row: dict[str, Any], verdict: str) -> bool:
    return bool(row["verdict"] == verdict)


def _title(row: dict[str, Any]) -> str:
    return f"{row['class']}, {row['variant']}" if row["variant"] else str(row["class"])
