"""Text to image on either framework: CFG cut off at 40 %, live previews, and an early stop.

    python examples/quickstart.py --framework torch --prompt "a red star on a blue background"

Writes previews, the finished picture and a contact sheet of the run to the folder --out.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from contact_sheet import contact_sheet
from PIL import Image

from unicb import Callback, CFGCutoff, Interrupt, Preview, PreviewFrame, bind
from unicb.backend import backend_for

CHECKPOINT = Path(__file__).parent / "shapes" / "checkpoint"


def pipeline_class(framework: str) -> Any:
    """Return the pipeline's class: this is the one place where the frameworks differ."""
    if framework == "mindspore":
        import unicb_mindspore

        unicb_mindspore.enable_cpu()  # does nothing on Ascend
        from mindone.diffusers import StableDiffusionPipeline
    else:
        from diffusers import StableDiffusionPipeline
    return StableDiffusionPipeline


def seeded_latents(pipe: Any, seed: int) -> Any:
    """Draw noise by numpy, ``[1, 4, 16, 16]``: the same picture on both frameworks."""
    size = pipe.unet.config.sample_size
    noise = np.random.default_rng(seed).normal(size=(1, pipe.unet.config.in_channels, size, size))
    # Any float32 tensor of the pipeline's framework will do as the example to follow.
    return backend_for(pipe).ops.from_numpy(noise, like=pipe.scheduler.alphas_cumprod)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--framework", choices=["torch", "mindspore"], default="torch")
    parser.add_argument("--prompt", default="a red star on a blue background")
    parser.add_argument("--out", type=Path, default=Path("out"), help="default: out")
    parser.add_argument("--stop-at", type=int, help="interrupt after this step")
    parser.add_argument("--steps", type=int, default=25, help="default: 25")
    parser.add_argument("--guidance", type=float, default=7.0, help="default: 7.0")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    options = parser.parse_args()

    pipe = pipeline_class(options.framework).from_pretrained(CHECKPOINT)
    frames: list[PreviewFrame] = []
    callbacks: list[Callback] = [
        CFGCutoff(0.4),
        Preview(options.out / "previews" / "{step:03d}.png"),
        Preview(frames.append),
    ]
    if options.stop_at is not None:
        callbacks.append(Interrupt(options.stop_at))

    image = bind(pipe, *callbacks)(
        options.prompt,
        num_inference_steps=options.steps,
        guidance_scale=options.guidance,
        latents=seeded_latents(pipe, options.seed),
        return_dict=False,
    )[0][0]

    image.save(options.out / "picture.png")
    steps: list[tuple[str, Image.Image]] = [(f"step {f.step}", f.images[0]) for f in frames]
    contact_sheet([*steps, ("picture", image)]).save(options.out / "contact_sheet.png")
    print(f"{options.framework}: {options.prompt!r}, {len(frames)} of {options.steps} steps")
    print(f"look at {options.out / 'contact_sheet.png'} and {options.out / 'picture.png'}")


if __name__ == "__main__":
    main()
