"""The pictures on the callbacks' pages, drawn with the shapes checkpoint.

    python examples/callback_pictures.py --framework torch --out docs/images/callbacks

Prints how far each picture is from the first of its row, in levels of 255.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from contact_sheet import contact_sheet
from PIL import Image
from quickstart import CHECKPOINT, pipeline_class, seeded_latents

from unicb import (
    AdaptiveProjectedGuidance,
    Callback,
    CFGCutoff,
    ClassifierFreeZeroStarGuidance,
    GuidanceInterval,
    GuidanceRescale,
    GuidanceRule,
    GuidanceSchedule,
    Interrupt,
    LatentsNotFiniteError,
    NaNGuard,
    Preview,
    PreviewFrame,
    PromptWeights,
    RuleStep,
    Step,
    TangentialClassifierFreeGuidance,
    Trajectory,
    bind,
    load_trajectory,
)
from unicb.backend import backend_for
from unicb.callbacks import linear

STAR, RING = "a red star on a white background", "a green ring on a white background"
STEPS, SCALE, SEED = 25, 7.0, 3
Row = list[tuple[str, Image.Image]]


class Draw:
    """Draws from the same noise each time."""

    def __init__(self, pipe: Any) -> None:
        self.pipe = pipe

    def __call__(self, *callbacks: Any, prompt: str = STAR, scale: float = SCALE) -> Image.Image:
        latents = seeded_latents(self.pipe, SEED)
        options = {"num_inference_steps": STEPS, "guidance_scale": scale, "latents": latents}
        image: Image.Image = bind(self.pipe, *callbacks)(prompt, **options)[0][0]
        return image


def cfg_cutoff(draw: Draw) -> Row:
    cuts = [(f"{cut:g}: {guided(cut)} of {2 * STEPS} rows", CFGCutoff(cut)) for cut in CUTS]
    return [(f"no cut: {2 * STEPS} rows", draw()), *((name, draw(cut)) for name, cut in cuts)]


CUTS = (0.8, 0.6, 0.4, 0.2, 0.0)


def guided(cut: float) -> int:
    """Return the rows that are computed: two in each step to that of the cut, then one in each."""
    return STEPS + min(STEPS, int(STEPS * cut) + 1)


def guidance_interval(draw: Draw) -> Row:
    parts = [(0.0, 1.0), (0.0, 0.4), (0.1, 0.5), (0.2, 0.6), (0.3, 0.7), (0.5, 0.9)]
    return [
        (f"{start:g} to {stop:g}", draw(GuidanceInterval(start, stop))) for start, stop in parts
    ]


def guidance_schedule(draw: Draw) -> Row:
    ends = [(7.0, 7.0), (7.0, 1.0), (14.0, 1.0), (1.0, 7.0), (1.0, 14.0)]
    scales = [(f"{first:g} to {last:g}", linear(first, last)) for first, last in ends]
    return [(name, draw(GuidanceSchedule(scale))) for name, scale in scales]


class Plain(GuidanceRule):
    """Does what the pipeline itself does."""

    def combine(self, unconditional: Any, conditional: Any, scale: Any, step: RuleStep) -> Any:
        return unconditional + (conditional - unconditional) * scale


def guidance_rule(draw: Draw) -> Row:
    rules: list[tuple[str, list[Callback]]] = [
        ("plain", []),
        ("rescaled", [GuidanceRescale(Plain(), 0.7)]),
        ("projected (APG)", [AdaptiveProjectedGuidance()]),
        ("CFG-Zero*", [ClassifierFreeZeroStarGuidance(zero_init_steps=0)]),
        ("tangential", [TangentialClassifierFreeGuidance()]),
    ]
    return [(name, draw(*rule, scale=14.0)) for name, rule in rules]


def prompt_weights(draw: Draw) -> Row:
    shares = [0.0, 0.25, 0.5, 0.75, 1.0]
    weights = [(share, PromptWeights({STAR: 1 - share, RING: share})) for share in shares]
    return [(f"{share:.0%} ring", draw(blend)) for share, blend in weights]


def preview(draw: Draw) -> Row:
    frames: list[PreviewFrame] = []
    image = draw(Preview(frames.append, every=5))
    return [*((f"step {f.step}", f.images[0]) for f in frames), ("picture", image)]


def interrupt(draw: Draw) -> Row:
    stops = [4, 8, 12, 16, 20]
    return [("all 25 steps", draw()), *((f"after step {n}", draw(Interrupt(n))) for n in stops)]


def trajectory(draw: Draw) -> Row:
    """Draw the latents of a file, decoded by the pipeline's VAE."""
    with TemporaryDirectory() as folder:
        file = Path(folder, "run.npz")
        draw(Trajectory(file, every=4))
        recorded = load_trajectory(file)
    ops, vae = backend_for(draw.pipe).ops, draw.pipe.vae
    like = draw.pipe.scheduler.alphas_cumprod
    row: Row = []
    for step, latents in zip(recorded.steps, recorded.latents, strict=True):
        x = ops.from_numpy(np.asarray(latents, np.float32) / vae.config.scaling_factor, like=like)
        out = ops.to_numpy(without_grad(draw.pipe, lambda x=x: vae.decode(x, return_dict=False)[0]))
        pixels = np.clip((out[0].transpose(1, 2, 0) + 1) * 127.5, 0, 255).astype(np.uint8)
        row.append((f"step {step}", Image.fromarray(pixels)))
    return row


def without_grad(pipe: Any, work: Callable[[], Any]) -> Any:
    if backend_for(pipe).name != "torch":
        return work()
    import torch

    with torch.no_grad():
        return work()


class Spoil(Callback):
    """Makes one value NaN after a step, as an overflow in float16 does."""

    tensors = ("latents",)

    def __init__(self, after: int) -> None:
        self.after = after

    def on_step_end(self, step: Step) -> None:
        if step.index == self.after:
            values = np.array(step.ops.to_numpy(step["latents"]))
            values[0, 0, 8, 8] = np.nan
            step["latents"] = step.ops.from_numpy(values, like=step["latents"])


def nan_guard(draw: Draw) -> Row:
    image = draw(Spoil(12))
    stopped = draw(Spoil(12), NaNGuard("stop"))
    try:
        draw(Spoil(12), NaNGuard())
    except LatentsNotFiniteError as error:
        print(f"raises: {error}")
    return [("a NaN in step 12", image), ('NaNGuard("stop")', stopped)]


def first_run(draw: Draw) -> Row:
    frames: list[PreviewFrame] = []
    cut = draw(CFGCutoff(0.4), Preview(frames.append, every=6))
    stopped = draw(CFGCutoff(0.4), Interrupt(14))
    shown = [(f"preview {frame.step}", frame.images[0]) for frame in frames[1:-1]]
    return [("full", draw()), ("cut", cut), *shown, ("stopped", stopped)]


ROWS = (
    first_run,
    *(cfg_cutoff, guidance_interval, guidance_schedule, guidance_rule, prompt_weights, preview),
    *(interrupt, trajectory, nan_guard),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--framework", choices=["torch", "mindspore"], default="torch")
    parser.add_argument("--out", type=Path, default=Path("out/callbacks"))
    parser.add_argument("names", nargs="*", help="which; all, if none is named")
    options = parser.parse_args()
    pipe = pipeline_class(options.framework).from_pretrained(CHECKPOINT)
    pipe.set_progress_bar_config(disable=True)
    options.out.mkdir(parents=True, exist_ok=True)
    for row in ROWS:
        if not options.names or row.__name__ in options.names:
            pictures = row(Draw(pipe))
            first = np.asarray(pictures[0][1], float)
            for name, image in pictures:
                away = np.abs(np.asarray(image.resize(pictures[0][1].size), float) - first).mean()
                print(f"{row.__name__:18} {name:24} {away:5.1f}")
            contact_sheet(pictures).save(options.out / f"{row.__name__}.png", optimize=True)


if __name__ == "__main__":
    main()
