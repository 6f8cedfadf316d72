"""Write what the page about coverage says of guidance that is cut."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

TITLE = "Guidance that is cut"
INTRODUCTION = """\
Measured by `nox -s coverage-cfg`. Each class was built as a tiny pipeline with random weights, on a
CPU in float32, and run with one prompt, with two, and with two images for each prompt, three times
from the same noise: with full guidance; as the reference, in which both halves are computed to the
end and the unconditional one is overwritten with the conditional one after the cut; and with
`CFGCutoff`.

- **exact**: the largest difference between the reference and the cut run, in standard deviations
  of the latents, is below 1e-5; the work of the unconditional part was saved; a plain run
  afterwards gives the same bits as one before (on MindSpore, to within 1e-5); the part that was
  kept is what the pipeline itself computes with guidance off; and in a run of one prompt with
  guidance off, `CFGCutoff` changes no bit. (For a few entries, guidance off is something else by
  design: `off_differs` in the zoo says why.)
- **refused**: `bind`, or an error in the first step after the cut, says why.
- **no guidance**: the class has no classifier-free guidance; `bind` refuses, and says why.

The figures are these differences. *Saved* is the share of the rows of all models in the loop that
steps after the cut leave out. It is less than a half where something else is computed beside
guidance: of three blocks with perturbed attention one goes; a ControlNet that is called once a step
stays. *Guidance by* is how a loop computes it: a **batch**, one call with several blocks of rows;
a **switch**, several calls, by a property that is read at each step; **calls**, several calls, by a
local flag.
"""


def headline(library: str, rows: list[dict[str, Any]]) -> Iterator[str]:
    exact = [row for row in rows if row["verdict"] == "exact"]
    if exact:
        yield (
            f"{library}: {len(exact)} runs exact, of "
            f"{len({(row['class'], row['variant']) for row in exact})} pipelines in "
            f"{len({row['class'] for row in exact})} classes; the largest difference is "
            f"{max(row['difference'] for row in exact):.1e}."
        )
