"""One prompt until some progress, and another one from there on.

    python examples/prompt_schedule.py --framework torch --out out/prompt_schedule.png

Prints how near each picture is to that of either prompt alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from contact_sheet import contact_sheet
from PIL import Image
from quickstart import CHECKPOINT, pipeline_class, seeded_latents

from unicb import PromptSchedule, bind


def distance(one: Image.Image, other: Image.Image) -> float:
    """Return the mean difference of two pictures' colours, of 255."""
    return float(np.abs(np.asarray(one, float) - np.asarray(other, float)).mean())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--framework", choices=["torch", "mindspore"], default="torch")
    parser.add_argument("--first", default="a red star on a white background")
    parser.add_argument("--then", default="a blue star on a white background")
    parser.add_argument("--at", type=float, nargs="+", default=[0.1, 0.2, 0.3, 0.4, 0.6])
    parser.add_argument("--interpolate", action="store_true", help="go over in a straight line")
    parser.add_argument("--out", type=Path, default=Path("out/prompt_schedule.png"))
    parser.add_argument("--steps", type=int, default=25, help="default: 25")
    parser.add_argument("--guidance", type=float, default=7.0, help="default: 7.0")
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    options = parser.parse_args()

    pipe = pipeline_class(options.framework).from_pretrained(CHECKPOINT)
    pipe.set_progress_bar_config(disable=True)

    def picture(prompt: str, *callbacks: Any) -> Image.Image:
        image: Image.Image = bind(pipe, *callbacks)(
            prompt,
            num_inference_steps=options.steps,
            guidance_scale=options.guidance,
            latents=seeded_latents(pipe, options.seed),
        )[0][0]
        return image

    first, then = picture(options.first), picture(options.then)
    tiles = [("the first", first)]
    print("from   to the first   to the second")
    for progress in options.at:
        schedule = [(0.0, options.first), (progress, options.then)]
        mixed = picture(options.first, PromptSchedule(schedule, options.interpolate))
        print(f"{progress:4.2f}   {distance(mixed, first):12.1f}   {distance(mixed, then):13.1f}")
        tiles.append((f"second from {progress:g}", mixed))
    tiles.append(("the second", then))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet(tiles).save(options.out, optimize=True)
    print(f"look at {options.out}")


if __name__ == "__main__":
    main()
