"""Guidance in an interval of the steps, and of a scale that changes, on one prompt.

    python examples/guidance.py --framework torch --out out/guidance.png

Prints how far each picture is from that of full guidance.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from contact_sheet import contact_sheet
from PIL import Image
from quickstart import CHECKPOINT, pipeline_class, seeded_latents

from unicb import CFGCutoff, GuidanceInterval, GuidanceSchedule, bind
from unicb.callbacks import linear


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--framework", choices=["torch", "mindspore"], default="torch")
    parser.add_argument("--prompt", default="a red star on a white background")
    parser.add_argument("--out", type=Path, default=Path("out/guidance.png"))
    parser.add_argument("--steps", type=int, default=25, help="default: 25")
    parser.add_argument("--guidance", type=float, default=7.0, help="default: 7.0")
    parser.add_argument("--seed", type=int, default=3, help="default: 3")
    options = parser.parse_args()
    pipe = pipeline_class(options.framework).from_pretrained(CHECKPOINT)
    pipe.set_progress_bar_config(disable=True)

    def picture(*callbacks: Any, guidance: float = options.guidance) -> Image.Image:
        image: Image.Image = bind(pipe, *callbacks)(
            options.prompt,
            num_inference_steps=options.steps,
            guidance_scale=guidance,
            latents=seeded_latents(pipe, options.seed),
        )[0][0]
        return image

    full = options.guidance
    variants = [
        ("no guidance", picture(guidance=1.0)),
        (f"guidance {full:g}", picture()),
        ("interval 0.1, 0.5", picture(GuidanceInterval(0.1, 0.5))),
        ("interval 0.3, 0.7", picture(GuidanceInterval(0.3, 0.7))),
        ("cutoff 0.4", picture(CFGCutoff(0.4))),
        (f"from 1 to {2 * full:g}", picture(GuidanceSchedule(linear(1.0, 2 * full)))),
        (f"from {2 * full:g} to 1", picture(GuidanceSchedule(linear(2 * full, 1.0)))),
    ]
    reference = np.asarray(variants[1][1], float)
    for name, image in variants:
        away = np.abs(np.asarray(image, float) - reference).mean()
        print(f"{name:18} mean difference from guidance {full:g}: {away:5.1f} of 255")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet(variants).save(options.out, optimize=True)
    print(f"look at {options.out}")


if __name__ == "__main__":
    main()
