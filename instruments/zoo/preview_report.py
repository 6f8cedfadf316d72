"""What the page about coverage says of previews, from what was measured on each framework."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from zoo.entry import CASES
from zoo.verdicts import verdicts

COLUMNS = ["right", "refused", "wrong", "failed", "not built"]
INTRODUCTION = """\
Made by `nox -s coverage-previews`; not written by hand. The same tiny pipelines were run twice from
the same noise: without unicb, and with previews, whose colours were made up (a tiny VAE has none).
What the pipeline itself hands to its decoder at the end is the judge of what belongs where; unicb's
layouts are not asked.

- **right**: with previews, the latents at the end of each loop and the finished picture have the
  same bits as without; there is one frame for each step (half steps of a scheduler of order 2 do
  not count), with one picture for each row of the batch, of the size that the decoder gets; what
  the frames say that they show is what the scheduler lets be told; and in every channel, the last
  frame's numbers are where the decoder gets them, over all rows, frames and cells. The figure is
  the least correlation of any channel; what it lacks of 1 is the rounding to 8 bits.
- **refused**: at `bind`, with the reason.
- **n/a**: the pipeline cannot do this case by itself.

Variants of a class were run with one case, the largest. On MindSpore, which takes longer, so was
every class, and its variants were left out.

*Shows* is what is shown from the second step on: the denoised picture, exact or an estimate, or the
noisy latents. *Colours* is the [format](latents.md) of the VAE that the class is published with;
where there is none, one has to be given or fitted.
"""
#: What pipelines make that are refused, if it is a picture or a video: why it cannot be shown.
PICTURES = {
    "JoyImageEditPlusPipeline": "each row has tokens of several pictures, each of its own size",
    "LTX2DFRPipeline": "tokens of the video, of keyframes and of references, whose sizes the loop "
    "does not have",
    "LTX2DFRTemporalRefinePipeline": "tokens of the video, of keyframes and of references, whose "
    "sizes the loop does not have",
    "LTXI2VLongMultiPromptPipeline": "what it offers is not the window of the video that it "
    "denoises",
    "VisualClozeGenerationPipeline": "each row has tokens of a grid of several pictures",
    "VisualClozePipeline": "each row has tokens of a grid of several pictures",
}
#: What else they make.
OTHERS = {
    "AceStepPipeline": "sound",
    "DiffusionGemmaPipeline": "text",
    "KandinskyV22PriorPipeline": "an embedding",
    "LLaDA2Pipeline": "text",
    "LongCatAudioDiTPipeline": "sound",
    "RFD4ProteinaPipeline": "a protein",
    "StableAudio3AudioToAudioPipeline": "sound",
    "StableAudio3InpaintPipeline": "sound",
    "StableAudio3Pipeline": "sound",
}


def totals(found: dict[str, Any], libraries: dict[str, str]) -> Iterator[str]:
    """The headline, and the table of verdicts."""
    yield "| classes that call a step-end callback | " + " | ".join((*COLUMNS, "in all")) + " |"
    yield "|---|" + "---:|" * (len(COLUMNS) + 1)
    for measured in found.values():
        verdict = verdicts(measured["rows"], COLUMNS)
        counts = [sum(v == column for v in verdict.values()) for column in COLUMNS]
        versions = ", ".join(f"{key} {value}" for key, value in measured["versions"].items())
        numbers = " | ".join(str(n) for n in (*counts, sum(counts)))
        yield f"| {versions} ({measured['date']}) | {numbers} |"
    yield ""
    for name, measured in found.items():
        verdict = verdicts(measured["rows"], COLUMNS)
        right = [kind for kind, v in verdict.items() if v == "right"]
        makes = [kind for kind in verdict if kind not in OTHERS]
        rows = [row for row in measured["rows"] if row["verdict"] == "right"]
        if rows:
            least = min(row["correlation"] for row in rows)
            yield (
                f"{libraries[name]}: previews on {len(right)} of {len(makes)} classes that make a "
                f"picture or a video; {len(rows)} runs, of which the least correlation is "
                f"{_floor(least)}."
            )
            yield ""


def framework(measured: dict[str, Any]) -> Iterator[str]:
    """The table of one framework's classes, and what was refused, and why."""
    rows = measured["rows"]
    cases = list(CASES)
    yield f"| class | {' | '.join(cases)} | frames x height x width | layout | colours | shows |"
    yield "|---|" + "---|" * len(cases) + "---|---|---|---|"
    yield from _lines([row for row in rows if row["layout"] and row["case"]])
    yield ""
    yield "### Refused at `bind`, and why"
    yield ""
    refused = {row["class"]: row for row in rows if row["verdict"] == "refused"}
    for kind, row in sorted(refused.items()):
        offered = f"; callbacks get {row['size']}" if row["size"] else ""
        yield f"- {kind}: {PICTURES.get(kind) or f'makes {OTHERS[kind]}'}{offered}"
    yield ""
    for verdict in ("wrong", "failed", "not built"):
        told = sorted(
            {
                f"- {row['class']}: {' '.join(row['why'].split())}"
                for row in rows
                if row["verdict"] == verdict
            }
        )
        if told:
            yield f"### {verdict.capitalize()}, and why"
            yield ""
            yield from told
            yield ""


def _lines(rows: list[dict[str, Any]]) -> Iterator[str]:
    for title in sorted(dict.fromkeys((row["class"], row["variant"]) for row in rows)):
        cells = {row["case"]: row for row in rows if (row["class"], row["variant"]) == title}
        largest = list(cells.values())[-1]
        done = next((row for row in cells.values() if row["size"]), largest)
        name = f"{title[0]}, {title[1]}" if title[1] else title[0]
        shown = " | ".join(_cell(cells.get(case)) for case in CASES)
        size = done["size"].partition(" x ")[2]
        about = [size, f"`{done['layout']}`", done["format"] or "-", done["source"] or "-"]
        yield f"| {name} | {shown} | {' | '.join(about)} |"


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    if row["verdict"] == "impossible":
        return "n/a"
    if row["verdict"] == "right":
        return f"right ({_floor(row['correlation'])})"
    return str(row["verdict"])


def _floor(correlation: float) -> str:
    return f"{int(correlation * 1e4) / 1e4:.4f}"
