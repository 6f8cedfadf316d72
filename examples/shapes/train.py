"""Train the shapes model from nothing, and write it as a checkpoint folder.

Four stages: the autoencoder; the UNet and the text encoder on true captions; the same on captions
in which some attributes are replaced at random; and a tiny autoencoder for previews. The third is
what gives guidance work to do: a model that has only seen true captions follows them fully at
guidance 1. A model that has seen noisy ones from the start hardly learns the text at all.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
from dataset import Drawings, make_drawings
from denoiser_stage import Denoiser, Plan, train_denoiser
from diffusers import AutoencoderKL
from drawings import all_scenes
from models import build_scheduler, build_text_encoder, build_unet, build_vae
from preview_fit import write_preview
from progress import Log
from saving import save_checkpoint, save_tiny_vae
from tiny_figures import HELD_OUT, HELD_OUT_SEED, on_drawings
from tiny_stage import STEPS, Source, train_tiny_vae
from torch import Tensor
from transformers import CLIPTokenizer
from vae_stage import encode, train_vae
from vocabulary import write_tokenizer

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Options:
    out: Path
    states: Path
    seed: int
    resume: bool
    drawings: int
    vae_steps: int
    true_steps: int
    true_rate: float
    noisy_steps: int
    noisy_rate: float
    noise: float
    tiny_steps: int


def parse(arguments: list[str] | None = None) -> Options:
    parser = argparse.ArgumentParser(
        description="Train the shapes model.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--out", type=Path, default=HERE / "checkpoint", help="folder for the checkpoint")
    add("--states", type=Path, default=Path("shapes-states"), help="folder for finished stages")
    add("--resume-from", type=Path, help="take the finished stages in this folder; do the others")
    add("--seed", type=int, default=0, help="of the drawings and of every stage")
    add("--drawings", type=int, default=8000, help="number of training drawings")
    add("--vae-steps", type=int, default=1000, help="steps of the autoencoder")
    add("--true-steps", type=int, default=5000, help="steps on true captions")
    add("--true-rate", type=float, default=1.2e-3, help="peak learning rate on true captions")
    add("--noisy-steps", type=int, default=800, help="steps on noisy captions")
    add("--noisy-rate", type=float, default=4e-4, help="peak learning rate on noisy captions")
    add("--noise", type=float, default=0.10, help="share of attributes replaced in noisy captions")
    add("--tiny-steps", type=int, default=STEPS, help="steps of the tiny autoencoder")
    given = vars(parser.parse_args(arguments))
    resume_from = given.pop("resume_from")
    given["states"] = resume_from or given["states"]
    return Options(**given, resume=resume_from is not None)


def finished(options: Options, stage: str, network: torch.nn.Module) -> bool:
    """Load what the stage left when last run, if this run resumes and it is there."""
    path = options.states / f"{stage}.pt"
    if not (options.resume and path.exists()):
        return False
    network.load_state_dict(torch.load(path, weights_only=True))
    network.eval()
    return True


def keep(options: Options, stage: str, network: torch.nn.Module) -> None:
    options.states.mkdir(parents=True, exist_ok=True)
    torch.save(network.state_dict(), options.states / f"{stage}.pt")


def autoencoder(options: Options, drawings: Drawings, log: Log) -> tuple[AutoencoderKL, Tensor]:
    """Run stage 1; return the autoencoder, and the drawings' latents (N, 4, 16, 16), scaled to
    spread 1."""
    # Every stage seeds anew, so that a resumed run goes on exactly as an unbroken one.
    torch.manual_seed(options.seed)
    vae = build_vae()
    if not finished(options, "vae", vae):
        vae = train_vae(drawings, options.vae_steps, log)
        keep(options, "vae", vae)
    latents = encode(vae, drawings)
    scaling_factor = 1 / latents.std().item()
    vae.register_to_config(scaling_factor=scaling_factor)
    return vae, latents * scaling_factor


def tokenizer_of_captions(options: Options) -> CLIPTokenizer:
    words = {word for scene in all_scenes() for word in scene.caption.split()}
    folder = options.out / "tokenizer"
    write_tokenizer(folder, words)
    return CLIPTokenizer.from_pretrained(folder)


def denoiser(
    options: Options, tokenizer: CLIPTokenizer, latents: Tensor, attributes: Tensor, log: Log
) -> Denoiser:
    """Run stages 2 and 3. The third always runs: it is the one to tune."""
    torch.manual_seed(options.seed + 1)
    network = Denoiser(build_unet(), build_text_encoder(tokenizer))
    if not finished(options, "true", network):
        plan = Plan("true", options.true_steps, options.true_rate, caption_noise=0.0)
        train_denoiser(network, tokenizer, latents, attributes, plan, log)
        keep(options, "true", network)
    torch.manual_seed(options.seed + 2)
    plan = Plan("noisy", options.noisy_steps, options.noisy_rate, options.noise)
    train_denoiser(network, tokenizer, latents, attributes, plan, log)
    return network


def run(options: Options, log: Log) -> None:
    drawings = make_drawings(options.drawings, options.seed)
    vae, latents = autoencoder(options, drawings, log)
    tokenizer = tokenizer_of_captions(options)
    network = denoiser(options, tokenizer, latents, drawings.attributes, log)
    save_checkpoint(options.out, vae, network.unet, network.text_encoder, build_scheduler())
    held_out = make_drawings(HELD_OUT, options.seed + HELD_OUT_SEED)
    measure = write_preview(options.out / "preview.toml", vae, latents, drawings, held_out)
    log.line(f"preview  {measure}")
    # Always trained, as the denoiser is whose estimates it learns from.
    source = Source(drawings, latents, network, tokenizer)
    tiny = train_tiny_vae(vae, source, options.tiny_steps, options.seed, log)
    save_tiny_vae(options.out / "tiny_vae", tiny)
    log.line(f"tiny     {on_drawings(tiny, vae, held_out)}")


def main() -> None:
    options = parse()
    # The training threads compute alone; so must the rest, for its rounding to be the same.
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    with Log(options.states / "training.log") as log:
        resumed = "; resumed" if options.resume else ""
        log.line(f"seed {options.seed}; torch {torch.__version__}{resumed}")
        run(options, log)


if __name__ == "__main__":
    main()
