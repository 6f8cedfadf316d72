"""Stage 4: a tiny autoencoder that imitates the full one, as TAESD does for Stable Diffusion.

Its decoder learns to give, for any latents that a preview may show, what the full decoder gives.
Between the steps of a run those are not latents of drawings, but what the denoiser takes the
finished ones to be: blurred early on, and overdone by guidance. Of some samplers only the noisy
latents can be shown. So the decoder learns from all three.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from dataset import Drawings, caption_table, encode_prompts
from denoiser_stage import Denoiser
from diffusers import AutoencoderKL, AutoencoderTiny
from models import build_scheduler, build_tiny_vae
from parallel import WORKERS, Gradients
from progress import Log, Stage
from torch import Tensor, nn
from tqdm import tqdm
from transformers import CLIPTokenizer

STEPS = 1500
BATCH = 32
PEAK_RATE = 3e-3
STRONGEST_GUIDANCE = 8.0
SAMPLING_NOISE = 0.1
"""Deviation of the noise on clean latents: a sampler's are never quite an encoder's."""


@dataclass(frozen=True)
class Lessons:
    """Scaled latents (N, 4, 16, 16), float32, and the full decodes to imitate.

    The decodes, (N, 3, 64, 64), are uint8: what is shown of them.
    """

    latents: Tensor
    decodes: Tensor

    def __len__(self) -> int:
        return len(self.latents)


@dataclass(frozen=True)
class Source:
    """Drawings, their scaled latents (N, 4, 16, 16), and the denoiser that learned from them."""

    drawings: Drawings
    latents: Tensor
    denoiser: Denoiser
    tokenizer: CLIPTokenizer


def _in_parts(name: str, work: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """Do `work` on parts of the inputs, without gradients; it must draw no random numbers."""
    parts = list(zip(*(tensor.split(50) for tensor in inputs), strict=True))
    with ThreadPoolExecutor(WORKERS, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        # Whether gradients are wanted is each thread's own setting.
        done = pool.map(lambda part: torch.no_grad()(work)(*part), parts)
        return torch.cat(list(tqdm(done, desc=name, total=len(parts), mininterval=5)))


def _noise(latents: Tensor) -> tuple[Tensor, Tensor]:
    """Return the latents with the noise of random times (N,) in the schedule, and these times."""
    scheduler = build_scheduler()
    times = torch.randint(0, scheduler.config.num_train_timesteps, (len(latents),))
    return scheduler.add_noise(latents, torch.randn_like(latents), times), times


def _estimates(source: Source, index: Tensor) -> Tensor:
    """Estimate what the denoiser, guided, takes the finished latents of these drawings to be.

    At random times, and with guidance scales whose logarithms are uniform.
    """
    noisy, times = _noise(source.latents[index])
    shape, colour, background = source.drawings.attributes[index].unbind(1)
    tokens = caption_table(source.tokenizer)[shape, colour, background]
    empty = encode_prompts(source.tokenizer, [""])
    scales = STRONGEST_GUIDANCE ** torch.rand(len(index), 1, 1, 1)
    cumulative = build_scheduler().alphas_cumprod[times].view(-1, 1, 1, 1)

    def estimate(x: Tensor, t: Tensor, text: Tensor, scale: Tensor, alpha_bar: Tensor) -> Tensor:
        unconditional = source.denoiser(x, t, empty.expand_as(text))
        noise = unconditional + scale * (source.denoiser(x, t, text) - unconditional)
        # arXiv 2010.02502, eq. 9.
        return (x - (1 - alpha_bar).sqrt() * noise) / alpha_bar.sqrt()

    return _in_parts("estimating", estimate, noisy, times, tokens, scales, cumulative)


def full_decodes(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """Decode scaled latents (N, 4, 16, 16) in full, to (N, 3, 64, 64), uint8."""

    def decode(part: Tensor) -> Tensor:
        decoded = vae.decode(part / vae.config.scaling_factor).sample
        return ((decoded.clamp(-1, 1) + 1) * 127.5).round().byte()

    return _in_parts("decoding", decode, latents)


def make_lessons(vae: AutoencoderKL, source: Source) -> Lessons:
    """Make two lessons of each drawing: nearly clean, and an estimate (three of four) or noisy."""
    clean = source.latents + SAMPLING_NOISE * torch.randn_like(source.latents)
    quarter = len(clean) // 4
    noisy, _ = _noise(source.latents[:quarter])
    estimates = _estimates(source, torch.arange(quarter, len(clean)))
    latents = torch.cat([clean, noisy, estimates])
    return Lessons(latents, full_decodes(vae, latents))


class _Losses(nn.Module):
    """The decoder's distance from the full decodes, and the encoder's from the full one's latents.

    The halves share nothing: each alone replaces its full counterpart.
    """

    def __init__(self, tiny: AutoencoderTiny) -> None:
        super().__init__()
        self.tiny = tiny

    def forward(self, lesson: Tensor, decodes: Tensor, pictures: Tensor, latents: Tensor) -> Tensor:
        """Compute the loss for latents with their full decodes, and for pictures with their
        latents."""
        decoded = self.tiny.decode(lesson).sample
        decoder = F.mse_loss(decoded, decodes) + 0.3 * F.l1_loss(decoded, decodes)
        return decoder + F.mse_loss(self.tiny.encode(pictures).latents, latents)


def train_tiny_vae(
    vae: AutoencoderKL, source: Source, steps: int, seed: int, log: Log
) -> AutoencoderTiny:
    """Train a tiny autoencoder that imitates `vae`. `seed` is that of the whole training."""
    # After those of the three stages before.
    torch.manual_seed(seed + 3)
    lessons = make_lessons(vae, source)
    tiny = build_tiny_vae()
    losses = _Losses(tiny).to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(losses.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, PEAK_RATE, total_steps=steps)
    gradients, stage = Gradients(losses), Stage("tiny", steps, log)
    for _ in stage:
        lesson = torch.randint(len(lessons), (BATCH,))
        decodes = lessons.decodes[lesson].float() / 127.5 - 1
        drawing = torch.randint(len(source.drawings), (BATCH,))
        pictures = source.drawings.normalised(drawing)
        batch = lessons.latents[lesson], decodes, pictures, source.latents[drawing]
        stage.report(gradients.fill(losses, *batch))
        nn.utils.clip_grad_norm_(losses.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    tiny.eval().to(memory_format=torch.contiguous_format)
    return tiny
