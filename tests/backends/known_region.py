"""Previews of inpainting: what is given of the picture, and what the model makes of the rest."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from decoded_runs import entry_of

from unicb import Callback, Preview, PreviewFrame, Step, bind
from unicb.latents import builtin_formats, to_rgb
from unicb.pipelines import facts_for, known_pipelines
from zoo.entry import Request
from zoo.framework import Framework

#: Families and titles of the zoo's entries whose loops put the given picture back.
PAINTING = (
    ("stable_diffusion", "StableDiffusionInpaintPipeline"),
    ("stable_diffusion", "StableDiffusionXLInpaintPipeline"),
    ("stable_diffusion", "StableDiffusionControlNetInpaintPipeline"),
    ("stable_diffusion", "StableDiffusionXLControlNetInpaintPipeline"),
    ("stable_diffusion", "StableDiffusionXLControlNetUnionInpaintPipeline"),
    ("pag", "StableDiffusionPAGInpaintPipeline"),
    ("pag", "StableDiffusionControlNetPAGInpaintPipeline"),
    ("pag", "StableDiffusionXLPAGInpaintPipeline"),
)
FORM = builtin_formats()["sd"]


class Guesses(Callback):
    """The colours of the x0 that UniPC keeps: what the model says, of every region."""

    tensors = ("latents",)

    def __init__(self) -> None:
        self.colours: list[Any] = []

    def on_step_end(self, step: Step) -> None:
        kept = getattr(step.pipeline.scheduler, "model_outputs", [None])[-1]
        if kept is not None:
            self.colours.append(to_rgb(kept, FORM, step.ops).pixels)


@dataclass
class Painted:
    """One run of 6 steps with two prompts.

    Attributes:
        frames, decoded: by the linear map, and by a function of the latents' channels.
        guesses: of every step, where the scheduler keeps x0.
    """

    frames: list[PreviewFrame] = field(default_factory=list)
    decoded: list[PreviewFrame] = field(default_factory=list)
    guesses: list[Any] = field(default_factory=list)


def run(fx: Framework, family: str, title: str, scheduler: str, **config: Any) -> Painted:
    entry = entry_of(family, title)
    fx.seed()
    pipe = entry.build(fx)
    betas = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    pipe.scheduler = fx.scheduler(scheduler, **betas, **config)
    request = Request(prompts=1 if "two prompts" in entry.impossible else 2, steps=6)
    found, guesses = Painted(), Guesses()
    shown = Preview(found.frames, factors=FORM)
    decoded = Preview(found.decoded, decoder=lambda latents: latents[:, :3] / 8)
    with bind(pipe, shown, decoded, guesses) as callbacks:
        pipe(**entry.arguments(fx, pipe, request), **callbacks)
    found.guesses = guesses.colours
    assert [f.step for f in found.frames] == list(range(len(found.frames)))
    return found


def pixels(frame: PreviewFrame) -> Any:
    return np.stack([np.asarray(image) for image in frame.images])


def _regions(shape: tuple[int, ...]) -> tuple[Any, Any]:
    """Which pixels are given, and which the model paints: the middle half, as in all of the zoo."""
    height, width = shape[1:3]
    painted = np.zeros((height, width), bool)
    painted[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4] = True
    return ~painted, painted


def check_known(frames: list[PreviewFrame]) -> None:
    """The given part is that of the finished latents in every denoised preview, and the rest is
    not. The loop puts in the clean original at its end.
    """
    exact = [frame for frame in frames[:-1] if frame.source == "exact"]
    assert len(exact) >= 3
    last = pixels(frames[-1])
    given, painted = _regions(last.shape)
    for frame in exact:
        # Two latents tell it to rounding.
        assert np.abs(pixels(frame).astype(int) - last)[:, given].max() <= 1
    assert (pixels(exact[0]) != last)[:, painted].any()


def check_guessed(found: Painted) -> None:
    """Elsewhere, and only there, previews show what the model says."""
    given, painted = _regions(pixels(found.frames[0]).shape)
    for frame, guess in zip(found.frames[:-1], found.guesses[:-1], strict=True):
        shown = pixels(frame)
        np.testing.assert_array_equal(shown[:, painted], guess[:, painted])
        assert (shown != guess)[:, given].mean() > 0.5


def check_all_guessed(found: Painted) -> None:
    """A model of 9 channels is shown the given picture, and paints all of it."""
    for frame, guess in zip(found.frames[:-1], found.guesses[:-1], strict=True):
        np.testing.assert_array_equal(pixels(frame), guess)


def with_known_region() -> set[str]:
    """Classes whose facts name one, and whose loops call a callback."""
    found = {name: facts_for(type(name, (), {})()) for name in known_pipelines()}
    named = {name for name, facts in found.items() if facts is not None and facts.known_region}
    return {name for name in named if not name.startswith("IFInpainting")}
