"""Functions as the frameworks' guides show them, for more than one prompt, on either framework.

    python examples/own_callbacks.py --framework torch

They are plain functions of (pipeline, step_index, timestep, callback_kwargs), and go through `bind`
as they are. Writes one picture for each prompt and each step to the folder --out.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image
from quickstart import CHECKPOINT, pipeline_class

from unicb import LatentFormat, bind
from unicb.backend import backend_for
from unicb.latents import to_rgb

PROMPTS = ["a red star on a blue background", "a white ring on a black background"]


def dynamic_cfg(pipe: Any, step_index: int, timestep: Any, callback_kwargs: dict[str, Any]) -> Any:
    """Switch guidance off after 40 % of the steps: from the doubled embeddings, keep those of all
    prompts, which are the second half, and not of the last prompt alone."""
    if step_index == int(pipe.num_timesteps * 0.4):
        embeds = callback_kwargs["prompt_embeds"]
        callback_kwargs["prompt_embeds"] = embeds[embeds.shape[0] // 2 :]
        pipe._guidance_scale = 0.0
    return callback_kwargs


def interrupt(
    pipe: Any, step_index: int, timestep: Any, callback_kwargs: dict[str, Any], *, after: int
) -> Any:
    """Stop after a step, and decode what there is."""
    if step_index == after:
        pipe._interrupt = True
    return callback_kwargs


def save_latents(
    pipe: Any, step_index: int, timestep: Any, callback_kwargs: dict[str, Any], *, folder: Path
) -> Any:
    """Write the latents of every prompt as a small picture."""
    colours = LatentFormat.load(CHECKPOINT / "preview.toml")
    pixels = to_rgb(callback_kwargs["latents"], colours, backend_for(pipe).ops).pixels
    for index, picture in enumerate(pixels):
        Image.fromarray(picture).resize((128, 128)).save(folder / f"{step_index:02d}-{index}.png")
    return callback_kwargs


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--framework", choices=["torch", "mindspore"], default="torch")
    parser.add_argument("--out", type=Path, default=Path("out/own"), help="default: out/own")
    parser.add_argument("--steps", type=int, default=25, help="default: 25")
    parser.add_argument("--stop-after", type=int, default=19, help="index of a step; default: 19")
    options = parser.parse_args()

    options.out.mkdir(parents=True, exist_ok=True)
    pipe = pipeline_class(options.framework).from_pretrained(CHECKPOINT)
    callbacks = bind(
        pipe,
        dynamic_cfg,
        partial(save_latents, folder=options.out),
        partial(interrupt, after=options.stop_after),
        tensor_inputs=["latents", "prompt_embeds"],
    )
    images = callbacks(PROMPTS, num_inference_steps=options.steps, return_dict=False)[0]
    for index, image in enumerate(images):
        image.save(options.out / f"picture-{index}.png")
    print(f"{callbacks.state} after step {callbacks.step}; look at {options.out}")


if __name__ == "__main__":
    main()
