"""A denoising loop of your own, with a cut of guidance, previews and a stop.

    python examples/own_loop.py --framework torch --prompt "a red star on a blue background"

No pipeline is called: ``draw`` is all of it. Writes previews, the picture and a contact sheet of
the run to the folder --out.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from contact_sheet import contact_sheet
from PIL import Image
from quickstart import CHECKPOINT, pipeline_class, seeded_latents

from unicb import Callback, CFGCutoff, Interrupt, Loop, Preview, PreviewFrame, bind
from unicb.backend import backend_for
from unicb.ops import TensorOps

SCALE = 7.0
#: Of the checkpoint's latents; a pipeline that comes from the checkpoint has them with it.
COLOURS = CHECKPOINT / "preview.toml"


def draw(pipe: Any, ops: TensorOps, embeds: Any, latents: Any, steps: int) -> Image.Image:
    """Run the loop; ``embeds`` has the negative prompt's, and the prompt's."""
    scheduler = pipe.scheduler
    scheduler.set_timesteps(steps)
    latents = latents * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        both = scheduler.scale_model_input(ops.concat([latents, latents]), t)
        noise = pipe.unet(both, t, encoder_hidden_states=embeds, return_dict=False)[0]
        negative, positive = ops.chunk(noise, 2)
        noise = negative + (positive - negative) * SCALE
        latents = scheduler.step(noise, t, latents, return_dict=False)[0]
    decoded = pipe.vae.decode(latents / pipe.vae.config.scaling_factor, return_dict=False)[0]
    picture: Image.Image = pipe.image_processor.postprocess(decoded, output_type="pil")[0]
    return picture


def embeddings(pipe: Any, ops: TensorOps, framework: str, prompt: str) -> Any:
    """Encode an empty prompt, and the prompt."""
    device = {"device": pipe.device} if framework == "torch" else {}
    positive, negative = pipe.encode_prompt(
        prompt=prompt, num_images_per_prompt=1, do_classifier_free_guidance=True, **device
    )
    return ops.concat([negative, positive])


def load(framework: str) -> Any:
    """Load the checkpoint's parts, which happen to come as a pipeline."""
    pipe = pipeline_class(framework).from_pretrained(CHECKPOINT)
    if framework == "torch":
        for model in (pipe.unet, pipe.vae, pipe.text_encoder):
            model.requires_grad_(False)
    return pipe


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--framework", choices=["torch", "mindspore"], default="torch")
    parser.add_argument("--prompt", default="a red star on a blue background")
    parser.add_argument("--out", type=Path, default=Path("out/own_loop"))
    parser.add_argument("--stop-at", type=int, help="interrupt after this step")
    parser.add_argument("--steps", type=int, default=25, help="default: 25")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    options = parser.parse_args()

    pipe = load(options.framework)
    parts = Loop(unet=pipe.unet, scheduler=pipe.scheduler, vae=pipe.vae, guidance="batch")
    frames: list[PreviewFrame] = []
    callbacks: list[Callback] = [
        CFGCutoff(0.4),
        Preview(options.out / "previews" / "{step:03d}.png", factors=COLOURS),
        Preview(frames.append, factors=COLOURS),
    ]
    if options.stop_at is not None:
        callbacks.append(Interrupt(options.stop_at))
    ops = backend_for(pipe).ops
    with bind(parts, *callbacks):
        embeds = embeddings(pipe, ops, options.framework, options.prompt)
        noise = seeded_latents(pipe, options.seed)
        image = draw(pipe, ops, embeds, noise, options.steps)

    image.save(options.out / "picture.png")
    sheet: list[tuple[str, Image.Image]] = [(f"step {f.step}", f.images[0]) for f in frames]
    contact_sheet([*sheet, ("picture", image)]).save(options.out / "contact_sheet.png")
    print(f"{options.framework}: {options.prompt!r}, {len(frames)} of {options.steps} steps")


if __name__ == "__main__":
    main()
