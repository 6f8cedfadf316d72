"""The same steps of one run twice: the loop's noisy latents, and the denoised latents.

    python examples/noisy_and_denoised.py --framework torch --out out/noisy_and_denoised.png

Prints how each preview correlates with the finished picture.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from contact_sheet import contact_sheet
from PIL import Image
from quickstart import CHECKPOINT, pipeline_class, seeded_latents

from unicb import Preview, PreviewFrame, bind


def correlation(preview: Image.Image, picture: Image.Image) -> float:
    """Compute Pearson's r between a preview and the picture averaged to its size."""
    small = picture.resize(preview.size, Image.Resampling.BOX)
    return float(np.corrcoef(np.asarray(preview).ravel(), np.asarray(small).ravel())[0, 1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--framework", choices=["torch", "mindspore"], default="torch")
    parser.add_argument("--prompt", default="a green ring on a black background")
    parser.add_argument("--out", type=Path, default=Path("out/noisy_and_denoised.png"))
    parser.add_argument("--steps", type=int, default=25, help="default: 25")
    parser.add_argument("--every", type=int, default=3, help="show every n-th step; default: 3")
    parser.add_argument("--guidance", type=float, default=7.0, help="default: 7.0")
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    options = parser.parse_args()

    pipe = pipeline_class(options.framework).from_pretrained(CHECKPOINT)
    noisy: list[PreviewFrame] = []
    denoised: list[PreviewFrame] = []
    previews = (
        Preview(noisy, every=options.every, source="noisy"),
        Preview(denoised, every=options.every, source="denoised"),
    )
    image = bind(pipe, *previews)(
        options.prompt,
        num_inference_steps=options.steps,
        guidance_scale=options.guidance,
        latents=seeded_latents(pipe, options.seed),
    )[0][0]

    print("step    noisy  denoised   correlation with the finished picture")
    for before, after in zip(noisy, denoised, strict=True):
        r = [correlation(frame.images[0], image) for frame in (before, after)]
        print(f"{before.step:4}   {r[0]:6.3f}    {r[1]:6.3f}")
    tiles = [(f"step {frame.step}", frame.images[0]) for frame in (*noisy, *denoised)]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet(tiles, columns=len(noisy)).save(options.out)
    print(f"look at {options.out}")


if __name__ == "__main__":
    main()
