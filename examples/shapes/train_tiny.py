"""Train the tiny autoencoder of a finished checkpoint, whose own parts are not changed.

    python examples/shapes/train_tiny.py

With the seed and the drawings that the checkpoint was trained with, the weights are those that
`train.py` gives.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from dataset import make_drawings
from denoiser_stage import Denoiser
from generate import load_pipeline
from progress import Log
from saving import save_tiny_vae
from tiny_figures import HELD_OUT, HELD_OUT_SEED, on_drawings
from tiny_stage import STEPS, Source, train_tiny_vae
from vae_stage import encode

HERE = Path(__file__).resolve().parent


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--checkpoint", type=Path, default=HERE / "checkpoint", help="default: the one shipped")
    add("--out", type=Path, help="default: tiny_vae in the checkpoint")
    add("--log", type=Path, default=Path("tiny-training.log"), help="default: tiny-training.log")
    add("--seed", type=int, default=0, help="as the checkpoint was trained with; default: 0")
    add("--drawings", type=int, default=8000, help="number of training drawings; default: 8000")
    add("--steps", type=int, default=STEPS, help=f"default: {STEPS}")
    options = parser.parse_args()
    # As in train.py, for the rounding to be the same.
    torch.set_num_threads(1)
    pipeline = load_pipeline("torch", options.checkpoint)
    vae = pipeline.vae
    drawings = make_drawings(options.drawings, options.seed)
    latents = encode(vae, drawings) * vae.config.scaling_factor
    denoiser = Denoiser(pipeline.unet, pipeline.text_encoder)
    with Log(options.log) as log:
        log.line(f"seed {options.seed}; torch {torch.__version__}; the tiny autoencoder alone")
        source = Source(drawings, latents, denoiser, pipeline.tokenizer)
        tiny = train_tiny_vae(vae, source, options.steps, options.seed, log)
        save_tiny_vae(options.out or options.checkpoint / "tiny_vae", tiny)
        held_out = make_drawings(HELD_OUT, options.seed + HELD_OUT_SEED)
        log.line(f"tiny     {on_drawings(tiny, vae, held_out)}")


if __name__ == "__main__":
    main()
