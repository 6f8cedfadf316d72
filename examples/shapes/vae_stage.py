"""Stage 1: the autoencoder."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from dataset import Drawings
from diffusers import AutoencoderKL
from models import LATENT_CHANNELS, SPATIAL_SCALE, build_vae
from parallel import Gradients
from progress import Log, Stage
from torch import Tensor, nn

BATCH = 24
PEAK_RATE = 3e-3


def picture_colours(pictures: Tensor) -> Tensor:
    """Average pictures (N, 3, H, W) to one colour for each latent cell."""
    return F.avg_pool2d(pictures, SPATIAL_SCALE)


class _Losses(nn.Module):
    """Reconstruction, a weak pull of the latents to a normal, and colours read off linearly.

    The last makes a cheap linear preview of the latents possible: without it nothing asks the
    encoder to keep colour where a linear map finds it.
    """

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae = vae
        self.read_out = nn.Conv2d(LATENT_CHANNELS, 3, 1)

    def forward(self, pictures: Tensor, noise: Tensor) -> Tensor:
        """Compute the loss for pictures (N, 3, 64, 64), with normal noise shaped as their
        latents."""
        posterior = self.vae.encode(pictures).latent_dist
        latents = posterior.mean + posterior.std * noise
        decoded = self.vae.decode(latents).sample
        reconstruction = F.mse_loss(decoded, pictures) + 0.3 * F.l1_loss(decoded, pictures)
        divergence = posterior.kl().mean() / latents[0].numel()
        colour = F.mse_loss(self.read_out(latents), picture_colours(pictures))
        return reconstruction + 1e-3 * divergence + 0.2 * colour


def train_vae(drawings: Drawings, steps: int, log: Log) -> AutoencoderKL:
    """Train an autoencoder on the drawings, its scaling factor not yet set."""
    vae = build_vae()
    # This memory layout is a sixth faster on a CPU here, and a quarter in the UNet.
    losses = _Losses(vae).to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(losses.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, PEAK_RATE, total_steps=steps)
    gradients, stage = Gradients(losses), Stage("vae", steps, log)
    for _ in stage:
        pictures = drawings.normalised(torch.randint(len(drawings), (BATCH,)))
        noise = torch.randn(BATCH, LATENT_CHANNELS, *picture_colours(pictures).shape[2:])
        stage.report(gradients.fill(losses, pictures, noise))
        nn.utils.clip_grad_norm_(losses.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    vae.eval().to(memory_format=torch.contiguous_format)
    return vae


def encode(vae: AutoencoderKL, drawings: Drawings) -> Tensor:
    """Encode the drawings to latents (N, 4, 16, 16), not scaled."""
    with torch.no_grad():
        parts = torch.arange(len(drawings)).split(100)
        return torch.cat([vae.encode(drawings.normalised(p)).latent_dist.mean for p in parts])
