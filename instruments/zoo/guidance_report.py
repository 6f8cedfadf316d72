"""Write what the page about coverage says of intervals of guidance and of scales that change."""

from __future__ import annotations

from typing import Any

from zoo.verdicts import verdicts

TITLE = "Guidance in an interval, and of a scale that changes"
INTRODUCTION = """\
Measured by `nox -s coverage-guidance`. The same tiny pipelines were run from the same noise with
`GuidanceInterval` and with `GuidanceSchedule`, each held against runs without unicb.

- **exact**, `GuidanceInterval`: the first step was without guidance, and so was the last of three
  or more. The largest difference from a run in which both halves are computed in every step, and
  the unconditional one is overwritten with the conditional one in those, is below 1e-5 of the
  latents' standard deviation; their unconditional work was saved, and the models got all of their
  rows in the other steps; and `GuidanceInterval(0, 0.4)` gives the bits of `CFGCutoff(0.4)` (on
  MindSpore, to within 1e-5).
- **exact**, `GuidanceSchedule`: three schedules are as near to their references. One scale for all
  steps: a plain call with that scale. A scale that rises from step to step: a plain call into whose
  loop (into the attribute, or into the local of its frame, where it has its scale) each was put
  from a plain callback. A scale that falls to where the class's guidance is off: a plain call with
  the first scale, with the unconditional half overwritten from that step on.
- **exact**, `GuidanceRule`: plain guidance by a rule, with another scale, and with the call's,
  gives a plain call with that scale, to within the same, or 1e-5 of what the scale does.
- **refused** and **no guidance**: `bind`, or an error in the first step, says why.

A few pipelines multiply roundings in later steps, by a scale of 500 or by choosing tokens of which
to take notice. There, a difference above 1e-5 is exact if the reference differs by more from itself
once all predictions are changed by four millionths. In both, a plain run afterwards gives the same
bits as one before (on MindSpore, to within 1e-5). Every entry was run with one case, the largest;
on MindSpore, variants of a class were left out. *Saved outside* is the share of rows that steps
outside the interval leave out.
"""


def headline(callback: str, rows: list[dict[str, Any]]) -> str:
    """Say on how many classes a callback works, and how exactly."""
    classes = verdicts(rows).values()
    right = sum(verdict == "exact" for verdict in classes)
    guided = sum(verdict != "no guidance" for verdict in classes)
    worst = max((row["difference"] for row in rows if row["verdict"] == "exact"), default=0.0)
    return f"`{callback}` on {right} of {guided} classes (within {worst:.1e})"
