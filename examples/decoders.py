"""The same steps of one run three ways: linear colours, a tiny decoder, and the pipeline's VAE.

    python examples/decoders.py --framework torch --out out/linear_tiny_vae.png

Prints how each preview correlates with the finished picture, and how long the run waited for it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from contact_sheet import contact_sheet
from noisy_and_denoised import correlation
from quickstart import CHECKPOINT, pipeline_class, seeded_latents

from unicb import Preview, PreviewFrame, Step, bind


def tiny_autoencoder(framework: str) -> Any:
    """Load the shapes' own tiny autoencoder; for Stable Diffusion it would be
    ``madebyollin/taesd``."""
    if framework == "mindspore":
        from mindone.diffusers import AutoencoderTiny
    else:
        from diffusers import AutoencoderTiny
    return AutoencoderTiny.from_pretrained(str(CHECKPOINT / "tiny_vae"))


class TimedPreview(Preview):
    """Note for how many seconds the run waited, at each step that was shown."""

    def __init__(self, frames: list[PreviewFrame], every: int, **options: Any) -> None:
        super().__init__(frames, every, **options)
        self.frames, self.every, self.seconds = frames, every, list[float]()

    def on_step_end(self, step: Step) -> None:
        begun = time.perf_counter()
        super().on_step_end(step)
        if step.index % self.every == 0:
            self.seconds.append(time.perf_counter() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--framework", choices=["torch", "mindspore"], default="torch")
    parser.add_argument("--prompt", default="a red star on a blue background")
    parser.add_argument("--out", type=Path, default=Path("out/linear_tiny_vae.png"))
    parser.add_argument("--steps", type=int, default=25, help="default: 25")
    parser.add_argument("--every", type=int, default=8, help="show every n-th step; default: 8")
    parser.add_argument("--guidance", type=float, default=7.0, help="default: 7.0")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    options = parser.parse_args()

    pipe = pipeline_class(options.framework).from_pretrained(CHECKPOINT)
    previews = {
        "linear": TimedPreview([], options.every),
        "tiny": TimedPreview([], options.every, decoder=tiny_autoencoder(options.framework)),
        "VAE": TimedPreview([], options.every, decoder="vae"),
    }
    image = bind(pipe, *previews.values())(
        options.prompt,
        num_inference_steps=options.steps,
        guidance_scale=options.guidance,
        latents=seeded_latents(pipe, options.seed),
        return_dict=False,
    )[0][0]

    print("step   linear    tiny     VAE   correlation with the finished picture")
    for frames in zip(*(preview.frames for preview in previews.values()), strict=True):
        r = [correlation(frame.images[0], image) for frame in frames]
        print(f"{frames[0].step:4}   " + "   ".join(f"{value:5.3f}" for value in r))
    for name, preview in previews.items():
        milliseconds = 1000 * np.array([statistics.median(preview.seconds), max(preview.seconds)])
        print(f"{name}: the run waited {milliseconds[0]:.2f} ms, at most {milliseconds[1]:.2f} ms")

    tiles = [
        (f"{name}, step {frame.step}", frame.images[0])
        for name, preview in previews.items()
        for frame in preview.frames
    ]
    columns = len(previews["linear"].frames)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet(tiles, columns=columns).save(options.out, optimize=True)
    print(f"look at {options.out}")


if __name__ == "__main__":
    main()
