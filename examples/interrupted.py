"""Interrupt runs early, and decode the denoised latents, or the loop's noisy latents.

    python examples/interrupted.py --framework torch --out out/interrupted.png

Prints how much either picture differs from the one of the whole run, over several prompts: the mean
over all values of 0 to 255. The sheet shows the first prompts.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from contact_sheet import contact_sheet
from PIL import Image
from quickstart import CHECKPOINT, pipeline_class, seeded_latents

from unicb import Interrupt, bind

PROMPTS = (
    "a green ring on a black background",
    "a red star on a white background",
    "a blue circle on a yellow background",
    "a purple triangle on a green background",
    "a yellow cross on a red background",
    "a white square on a blue background",
    "a red ring on a black background",
    "a green star on a blue background",
)
SHARES = (0.25, 0.5, 0.75)
SHOWN = 2


def difference(one: Image.Image, other: Image.Image) -> float:
    """Return the mean difference of two pictures' values, of 0 to 255."""
    values = [np.asarray(image).astype(float) for image in (one, other)]
    return float(np.abs(values[0] - values[1]).mean())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--framework", choices=["torch", "mindspore"], default="torch")
    parser.add_argument("--out", type=Path, default=Path("out/interrupted.png"))
    parser.add_argument("--steps", type=int, default=60, help="of a whole run; default: 60")
    parser.add_argument("--prompts", type=int, default=len(PROMPTS), help="default: all 8")
    parser.add_argument("--guidance", type=float, default=7.0, help="default: 7.0")
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    options = parser.parse_args()
    if not 1 <= options.prompts <= len(PROMPTS):
        parser.error(f"--prompts must be 1 to {len(PROMPTS)}, not {options.prompts}")

    pipe = pipeline_class(options.framework).from_pretrained(CHECKPOINT)
    pipe.set_progress_bar_config(disable=True)
    stops = [round(options.steps * share) for share in SHARES]
    ways = [(stop, picture) for stop in stops for picture in ("latents", "denoised")]
    found: dict[Any, list[float]] = {way: [] for way in ways}
    tiles: list[tuple[str, Image.Image]] = []
    for number, prompt in enumerate(PROMPTS[: options.prompts]):
        print(f"{number + 1} of {options.prompts}: {prompt}", file=sys.stderr)

        def draw(*callbacks: Interrupt, prompt: str = prompt, seed: int = number) -> Image.Image:
            arguments = {
                "num_inference_steps": options.steps,
                "guidance_scale": options.guidance,
                "latents": seeded_latents(pipe, options.seed + seed),
            }
            return bind(pipe, *callbacks)(prompt, **arguments)[0][0]

        whole = draw()
        for stop, picture in ways:
            image = draw(Interrupt(stop - 1, picture=picture))
            found[stop, picture].append(difference(image, whole))
            if number < SHOWN:
                tiles.append((f"{stop}, {picture}", image))
        if number < SHOWN:
            tiles.append((f"all {options.steps}", whole))

    print("steps   latents  denoised   mean difference to the finished picture, of 255")
    for stop in stops:
        means = [np.mean(found[stop, picture]) for picture in ("latents", "denoised")]
        print(f"{stop:5}   {means[0]:7.1f}   {means[1]:7.1f}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet(tiles, columns=len(ways) + 1).save(options.out)
    print(f"look at {options.out}")


if __name__ == "__main__":
    main()
