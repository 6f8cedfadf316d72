"""Write what the page about coverage says of previews, from what was measured on each framework."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from zoo.verdicts import verdicts

TITLE = "Previews"
INTRODUCTION = """\
Measured by `nox -s coverage-previews`. The same tiny pipelines were run twice from the same noise:
without unicb, and with previews, whose colours were made up (a tiny VAE has none). What the
pipeline itself hands to its decoder at the end is the judge of what belongs where; unicb's layouts
are not asked.

- **right**: with previews, the latents at the end of each loop and the finished picture have the
  same bits as without; there is one frame for each step (half steps of a scheduler of order 2 do
  not count), with one picture for each row of the batch, of the size that the decoder gets; what
  the frames say that they show is what the scheduler allows; and in every channel, the last
  frame's numbers are where the decoder gets them, over all rows, frames and cells. The figure is
  the least correlation of any channel; what it lacks of 1 is the rounding to 8 bits.
- **refused**: at `bind`, with the reason.

Variants of a class were run with one case, the largest. On MindSpore, which takes longer, so was
every class, and its variants were left out.

*Shows* is what is shown from the second step on: the denoised picture, exact or an estimate, or the
noisy latents. *Colours* is the [format](latents.md) of the VAE that the class is published with;
where there is none, one has to be given or fitted.
"""
#: What pipelines make that are refused, if it is a picture or a video: why it cannot be shown.
PICTURES = {
    "AmusedPipeline": "its latents are the numbers of a codebook's entries",
    "JoyImageEditPlusPipeline": "each row has tokens of several pictures, each of its own size",
    "LTX2DFRPipeline": "tokens of the video, of keyframes and of references, whose sizes the loop "
    "does not have",
    "LTX2DFRTemporalRefinePipeline": "tokens of the video, of keyframes and of references, whose "
    "sizes the loop does not have",
    "LTXI2VLongMultiPromptPipeline": "what it offers is not the window of the video that it "
    "denoises",
    "MarigoldIntrinsicsPipeline": "several pictures are in the channels of one",
    "UniDiffuserPipeline": "a picture, an embedding of it and a text are in one row of numbers",
    "VQDiffusionPipeline": "its latents are the numbers of a codebook's entries",
    "VisualClozeGenerationPipeline": "each row has tokens of a grid of several pictures",
    "VisualClozePipeline": "each row has tokens of a grid of several pictures",
}
#: What else they make.
OTHERS = {
    "AceStepPipeline": "sound",
    "AudioLDM2Pipeline": "sound",
    "AudioLDMPipeline": "sound",
    "DanceDiffusionPipeline": "sound",
    "DiffusionGemmaPipeline": "text",
    "KandinskyPriorPipeline": "an embedding",
    "KandinskyV22PriorEmb2EmbPipeline": "an embedding",
    "KandinskyV22PriorPipeline": "an embedding",
    "LLaDA2Pipeline": "text",
    "LongCatAudioDiTPipeline": "sound",
    "MusicLDMPipeline": "sound",
    "RFD4ProteinaPipeline": "a protein",
    "ShapEImg2ImgPipeline": "an object",
    "ShapEPipeline": "an object",
    "StableAudio3AudioToAudioPipeline": "sound",
    "StableAudio3InpaintPipeline": "sound",
    "StableAudio3Pipeline": "sound",
    "StableAudioPipeline": "sound",
}


def makes(kind: str) -> str:
    """Say what a class makes whose previews are refused, or why it cannot be shown."""
    return PICTURES.get(kind) or (f"it makes {OTHERS[kind]}" if kind in OTHERS else "")


def headline(library: str, rows: list[dict[str, Any]]) -> Iterator[str]:
    verdict = verdicts(rows)
    right = [row for row in rows if row["verdict"] == "right"]
    if right:
        yield (
            f"{library}: previews on {sum(v == 'right' for v in verdict.values())} of "
            f"{sum(kind not in OTHERS for kind in verdict)} classes that make a picture or a "
            f"video; {len(right)} runs, of which the least correlation is "
            f"{floor(min(row['correlation'] for row in right))}."
        )


def floor(correlation: float) -> str:
    """Return a correlation to four places, never rounded up."""
    return f"{int(correlation * 1e4) / 1e4:.4f}"
