"""Measure the tiny autoencoder against the full one: likeness, decode time and size.

    python examples/shapes/tiny_figures.py

Likeness on drawings that no training saw, and on what previews of real runs show.
"""

from __future__ import annotations

import argparse
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from dataset import Drawings, make_drawings
from diffusers import AutoencoderKL, AutoencoderTiny
from generate import load_pipeline, random_requests
from preview_fit import PreviewFit, correlations
from torch import Tensor
from vae_stage import encode

HERE = Path(__file__).resolve().parent
HELD_OUT = 500
HELD_OUT_SEED = 1000


@dataclass(frozen=True)
class Likeness:
    """``Likeness`` says how like pictures are to others: one number of each for every picture,
    (N,)."""

    r: Tensor
    """Pearson's, over all pixels and colours."""
    psnr: Tensor
    """Peak signal-to-noise ratio in dB."""

    def __str__(self) -> str:
        return (
            f"r mean {self.r.mean():.4f}, minimum {self.r.min():.4f}; "
            f"PSNR mean {self.psnr.mean():.1f}, minimum {self.psnr.min():.1f} dB"
        )


def likeness(pictures: Tensor, others: Tensor) -> Likeness:
    """Compare pictures (N, 3, H, W) with others, both in [-1, 1]."""
    error = (pictures - others).square().flatten(1).mean(1)
    # The greatest possible difference is 2.
    return Likeness(correlations(pictures, others), 10 * torch.log10(4 / error))


@torch.no_grad()
def decode(autoencoder: AutoencoderKL | AutoencoderTiny, latents: Tensor) -> Tensor:
    """Decode scaled latents (N, 4, 16, 16) to what is shown of them: (N, 3, 64, 64) in [-1, 1]."""
    parts = (latents / autoencoder.config.scaling_factor).split(50)
    return torch.cat([autoencoder.decode(part).sample.clamp(-1, 1) for part in parts])


def compare_decodes(tiny: AutoencoderTiny, vae: AutoencoderKL, latents: Tensor) -> Likeness:
    """Compare the tiny decode of scaled latents (N, 4, 16, 16) with the full one."""
    return likeness(decode(tiny, latents), decode(vae, latents))


def linear_preview(file: Path, latents: Tensor) -> Tensor:
    """Compute what preview data show of scaled latents (N, 4, 16, 16), enlarged: (N, 3, 64, 64)."""
    data = tomllib.loads(file.read_text(encoding="utf-8"))
    fit = PreviewFit(torch.tensor(data["factors"]), torch.tensor(data["bias"]))
    scale = data["spatial_scale"]
    return F.interpolate(fit.apply(latents), scale_factor=scale, mode="bicubic").clamp(-1, 1)


def on_drawings(tiny: AutoencoderTiny, vae: AutoencoderKL, drawings: Drawings) -> Likeness:
    return compare_decodes(tiny, vae, encode(vae, drawings) * vae.config.scaling_factor)


@torch.no_grad()
def tiny_encode(tiny: AutoencoderTiny, drawings: Drawings) -> Tensor:
    """Encode the drawings to scaled latents (N, 4, 16, 16)."""
    parts = torch.arange(len(drawings)).split(50)
    return torch.cat([tiny.encode(drawings.normalised(part)).latents for part in parts])


def record(pipeline: Any, guidance: float, prompts: int) -> tuple[Tensor, Tensor]:
    """Record the latents of runs of 25 steps: the denoised ones of each step that has any, and the
    noisy.

    Both are (steps, prompts, 4, 16, 16).
    """
    from unicb import Callback, Step, bind
    from unicb.latents.denoised import DenoisedEstimate

    class Record(Callback):
        tensors = ("latents",)

        def __init__(self) -> None:
            self.estimate: DenoisedEstimate | None = None
            self.denoised: list[Tensor] = []
            self.noisy: list[Tensor] = []

        def on_step_end(self, step: Step) -> None:
            if self.estimate is None:
                # The scheduler has this run's schedule only now.
                self.estimate = DenoisedEstimate(step.pipeline.scheduler, step.ops)
            x0 = self.estimate.step_end(step["latents"])
            self.noisy.append(step["latents"].clone())
            if x0 is not None:
                self.denoised.append(x0.clone())

    scenes, start = random_requests(prompts, seed=5)
    seen = Record()
    pipeline(
        [scene.caption for scene in scenes],
        latents=torch.from_numpy(start),
        guidance_scale=guidance,
        num_inference_steps=25,
        output_type="latent",
        **bind(pipeline, seen),
    )
    return torch.stack(seen.denoised), torch.stack(seen.noisy)


def milliseconds(work: Callable[[], object], repetitions: int = 50) -> float:
    """Measure the median processor time of a call, after some to warm up.

    In one thread that is the time it takes on a processor that has nothing else to do.
    """
    seconds = []
    for _ in range(repetitions + 5):
        began = time.process_time()
        work()
        seconds.append(time.process_time() - began)
    return 1e3 * sorted(seconds[5:])[repetitions // 2]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, default=HERE / "checkpoint")
    parser.add_argument("--prompts", type=int, default=16, help="runs to preview; default: 16")
    options = parser.parse_args()
    torch.set_num_threads(1)
    pipeline = load_pipeline("torch", options.checkpoint)
    folder = options.checkpoint / "tiny_vae"
    vae, tiny = pipeline.vae, AutoencoderTiny.from_pretrained(folder)

    drawings = make_drawings(HELD_OUT, HELD_OUT_SEED)
    pictures = drawings.normalised(torch.arange(len(drawings)))
    latents = encode(vae, drawings) * vae.config.scaling_factor
    encoded = tiny_encode(tiny, drawings)
    print(
        f"tiny with full decode, {HELD_OUT} held-out drawings: {on_drawings(tiny, vae, drawings)}"
    )
    linear = linear_preview(options.checkpoint / "preview.toml", latents)
    print(f"linear preview, enlarged, with full decode:  {likeness(linear, decode(vae, latents))}")
    print(f"drawings through the tiny:  {likeness(decode(tiny, encoded), pictures)}")
    print(f"drawings through the full:  {likeness(decode(vae, latents), pictures)}")
    print(f"latents of the tiny encoder: r {correlations(encoded, latents).mean():.4f} in the mean")
    for guidance in (1.0, 7.0):
        denoised, noisy = record(pipeline, guidance, options.prompts)
        third = len(denoised) // 3
        for name, shown in (
            ("denoised, first third", denoised[:third]),
            ("denoised, the rest", denoised[third:]),
            ("noisy", noisy),
        ):
            compared = compare_decodes(tiny, vae, shown.flatten(0, 1))
            print(f"runs with guidance {guidance:g}, {name}: {compared}")
    with torch.no_grad():
        for batch in (1, 4):
            some = latents[:batch]
            full = milliseconds(lambda some=some: vae.decode(some))
            small = milliseconds(lambda some=some: tiny.decode(some))
            print(f"decode of {batch}, one thread: full {full:.1f} ms, tiny {small:.1f} ms")
    size = (folder / "diffusion_pytorch_model.safetensors").stat().st_size
    parts = (sum(p.numel() for p in part.parameters()) for part in (tiny.encoder, tiny.decoder))
    print("{} bytes; parameters: encoder {}, decoder {}".format(size, *parts))


if __name__ == "__main__":
    main()
