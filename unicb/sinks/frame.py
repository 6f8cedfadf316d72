"""What a sink is given."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image


@dataclass(frozen=True)
class PreviewFrame:
    """The previews of one step.

    Attributes:
        step: index of the step, from 0.
        num_timesteps: how many steps there are.
        timestep: the scheduler's timestep.
        images: one RGB picture for each row of the batch, one pixel for each latent cell; or
            what was asked for instead (see :func:`unicb.sinks.shape_images`).
        source: what they show. "exact": the denoised latents of the step, to rounding; "estimate":
            nearly those; "noisy": the latents as they are.
    """

    step: int
    num_timesteps: int
    timestep: float
    images: list[Image.Image]
    source: str = "noisy"
