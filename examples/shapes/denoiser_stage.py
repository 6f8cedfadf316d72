"""Stages 2 and 3: the UNet and the text encoder, trained together."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from dataset import caption_table, encode_prompts, replace_at_random
from diffusers import UNet2DConditionModel
from models import build_scheduler
from parallel import Gradients
from progress import Log, Stage
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

BATCH = 32
CAPTION_DROPOUT = 0.12
"""Share of pictures trained with an empty prompt, which guidance needs."""


@dataclass(frozen=True)
class Plan:
    """A plan says how one stage of training goes."""

    name: str
    steps: int
    peak_rate: float
    caption_noise: float
    """Share of the attributes in the captions that are replaced at random."""


class Denoiser(nn.Module):
    """The UNet with the text encoder that feeds it."""

    def __init__(self, unet: UNet2DConditionModel, text_encoder: CLIPTextModel) -> None:
        super().__init__()
        self.unet = unet
        self.text_encoder = text_encoder

    def forward(self, noisy: Tensor, times: Tensor, tokens: Tensor) -> Tensor:
        """Predict the noise in latents (N, 4, 16, 16) at times (N,), with token numbers (N,
        length)."""
        states = self.text_encoder(tokens)[0]
        noise: Tensor = self.unet(noisy, times, encoder_hidden_states=states).sample
        return noise

    def loss(self, noisy: Tensor, times: Tensor, tokens: Tensor, noise: Tensor) -> Tensor:
        return F.mse_loss(self(noisy, times, tokens), noise)


class _Average:
    """A running average of a network's weights, which draws better than the last weights."""

    def __init__(self, network: nn.Module) -> None:
        self._live = list(network.parameters())
        self._mean = [p.detach().clone() for p in self._live]
        self._seen = 0

    @torch.no_grad()
    def update(self) -> None:
        # Early on the average is short, so that the first, random weights leave it at once.
        keep = min(0.999, (1 + self._seen) / (10 + self._seen))
        self._seen += 1
        torch._foreach_lerp_(self._mean, self._live, 1 - keep)

    @torch.no_grad()
    def copy_to_network(self) -> None:
        for live, mean in zip(self._live, self._mean, strict=True):
            live.copy_(mean)


class _Captions:
    """Draw the token numbers for a batch: noise in the attributes, and some prompts left out."""

    def __init__(self, tokenizer: CLIPTokenizer, noise: float) -> None:
        self._table = caption_table(tokenizer)
        self._empty = encode_prompts(tokenizer, [""])
        self._noise = noise

    def draw(self, attributes: Tensor) -> Tensor:
        shape, colour, background = replace_at_random(attributes, self._noise).unbind(1)
        dropped = torch.rand(len(attributes), 1) < CAPTION_DROPOUT
        return torch.where(dropped, self._empty, self._table[shape, colour, background])


def train_denoiser(
    denoiser: Denoiser,
    tokenizer: CLIPTokenizer,
    latents: Tensor,
    attributes: Tensor,
    plan: Plan,
    log: Log,
) -> None:
    """Train in place, on scaled latents (N, 4, 16, 16) and what they show, (N, 3) int64."""
    captions, scheduler = _Captions(tokenizer, plan.caption_noise), build_scheduler()
    optimiser = torch.optim.AdamW(denoiser.parameters(), weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, plan.peak_rate, total_steps=plan.steps, pct_start=0.05
    )
    average, gradients = _Average(denoiser), Gradients(denoiser)
    stage = Stage(plan.name, plan.steps, log)
    denoiser.train().to(memory_format=torch.channels_last)
    for _ in stage:
        index = torch.randint(len(latents), (BATCH,))
        clean, noise = latents[index], torch.randn(BATCH, *latents.shape[1:])
        times = torch.randint(0, scheduler.config.num_train_timesteps, (BATCH,))
        noisy = scheduler.add_noise(clean, noise, times)
        tokens = captions.draw(attributes[index])
        stage.report(gradients.fill(denoiser.loss, noisy, times, tokens, noise))
        nn.utils.clip_grad_norm_(denoiser.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        average.update()
    average.copy_to_network()
    denoiser.eval().to(memory_format=torch.contiguous_format)
