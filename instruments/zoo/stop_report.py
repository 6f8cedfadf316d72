"""Write what the page about coverage says of stops, from what was measured on each framework."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from zoo.verdicts import verdicts

TITLE = "Stops"
INTRODUCTION = """\
Measured by `nox -s coverage-stops`. The same tiny pipelines were interrupted after their second
step, and cancelled there, and before their denoiser was first called. The reference of the
interrupted run is one without unicb, in which a plain callback puts the latents of that step in
place of those of every later one, so that the pipeline itself decodes them.

- **exact**: after the stop, no denoiser is called; what the pipeline returns has the same bits as
  what the reference returns (on MindSpore, to within 1e-5, or one of 255). Cancelled, the call
  raises, with the latents of that step, and nothing is decoded; cancelled at once, no denoiser is
  called at all. Each of these leaves the models and the scheduler without a trace, and a plain run
  afterwards is the same as one before.
- **otherwise**: the same, but more is decoded than the latents of the stop; what, is said on
  the family's page. Where the loop reads an interrupt flag, it is what the pipeline makes of it if
  one sets the flag oneself.
- **refused**: `bind` refuses to interrupt it; to cancel it is as above.

Loops that read the pipeline's interrupt **flag** skip the steps that are left. The others *run
out*: models and scheduler answer as in the last step, and nothing is computed.
"""


def headline(library: str, rows: list[dict[str, Any]]) -> Iterator[str]:
    if not rows:
        return
    verdict = verdicts(rows)
    ways = {row["class"]: row["way"] for row in reversed(rows)}  # not of variants
    works = [kind for kind, v in verdict.items() if v in ("exact", "otherwise")]
    # What bind says of a class that no entry builds tells nothing of its runs.
    ran = {row["class"] for row in rows if row["case"]}
    cancels = [kind for kind in works if kind in ran]
    cancels += [kind for kind, v in verdict.items() if v == "refused" and kind in ran]
    out = sum(ways[kind] == "runs out" for kind in works)
    exact = sum(v == "exact" for v in verdict.values())
    yield (
        f"{library}: interrupt works on {len(works)} of {len(verdict)} classes that "
        f"call a callback ({len(works) - out} read a flag, {out} run out), on {exact} of them "
        f"with the latents of the stop to the last bit; cancel works on {len(cancels)}."
    )
