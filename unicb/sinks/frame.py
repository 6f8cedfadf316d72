"""Hold what a sink is given."""

from __future__ import annotations

from dataclasses import dataclass, field

from PIL import Image


@dataclass(frozen=True)
class PreviewFrame:
    """A preview frame holds the previews of one step.

    Attributes:
        step: index of the step, from 0.
        num_timesteps: how many steps there are.
        timestep: the scheduler's timestep; the largest, where each frame of a video has its own.
        images: one RGB picture for each row of the batch, one pixel for each latent cell; or
            what was asked for instead (see :func:`unicb.sinks.shape_images`).
        source: what they show. "exact": the denoised latents of the step, to rounding; "estimate":
            nearly those; "noisy": the latents as they are.
        run: which of its Preview's runs it is of, counted from 0.
        videos: with ``Preview(frames="animation")``, for each row all of its latent frames, in
            order, as ``images`` has its middle one; otherwise empty. (With ``batch="grid"``, one
            video of grids.) How long a latent frame lasts is not known of it.
        rank: of the process that has made it, among those that were started together, from 0.

    Example:
        >>> frames = []
        >>> image = bind(pipe, Preview(frames.append))("a red star", num_inference_steps=4)[0]
        >>> last = frames[-1]
        >>> last.step, last.num_timesteps, last.images[0].size
        (3, 4, (8, 8))
    """

    step: int
    num_timesteps: int
    timestep: float
    images: list[Image.Image]
    source: str = "noisy"
    videos: list[list[Image.Image]] = field(default_factory=list)
    run: int = 0
    rank: int = 0

    def _repr_png_(self) -> bytes:
        """Return the pictures as a PNG file for notebooks, several in a grid."""
        from unicb.sinks._html import png
        from unicb.sinks.shape import grid

        return png(self.images[0] if len(self.images) == 1 else grid(self.images, gap=2))

    def _repr_html_(self) -> str:
        """Return the pictures side by side for notebooks, or the videos as they play."""
        from unicb.sinks._html import gallery

        words = f"step {self.step + 1}/{self.num_timesteps}"
        return gallery(self.videos or self.images, words)
