"""Define the frames that a sink gets."""

from __future__ import annotations

from dataclasses import dataclass, field

from PIL import Image


@dataclass(frozen=True)
class PreviewFrame:
    """A preview frame holds the previews of one step.

    Attributes:
        step: index of the step, from 0.
        num_timesteps: number of steps of the run.
        timestep: the scheduler's timestep; the largest, if each frame of a video has its own.
        images: one RGB picture for each row of the batch, with one pixel for each latent cell; or
            as the Preview's ``size`` and ``batch`` say (see :func:`unicb.sinks.shape_images`).
        source: what the pictures show. "exact": the denoised latents of the step, up to rounding;
            "estimate": nearly those; "noisy": the loop's latents, with noise.
        run: number of the Preview's run, from 0.
        videos: with ``Preview(frames="animation")``, a list for each row of all its latent frames
            in order; otherwise empty. ``images`` then has the middle frames. (With
            ``batch="grid"``, there is one video of grids.) The duration of a latent frame is not
            known.
        rank: number of the process that made the frame, among those started together, from 0.

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
        """Return HTML for notebooks with the pictures side by side, or the playing videos."""
        from unicb.sinks._html import gallery

        words = f"step {self.step + 1}/{self.num_timesteps}"
        return gallery(self.videos or self.images, words)
