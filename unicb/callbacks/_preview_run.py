"""Keep what is known of a run that a Preview shows, and make the frames of its steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from unicb.callbacks._preview_pictures import Pixels, StepPictures
from unicb.sinks import Background, PreviewFrame, Throttle
from unicb.sinks.background import Make

#: Pictures and videos, as a frame has them.
Shaped: TypeAlias = tuple[list[Image.Image], list[list[Image.Image]]]


@dataclass
class PreviewedRun:
    """``PreviewedRun`` holds what is known of a run under way; one Preview may serve several at a
    time.

    Attributes:
        sink: where its frames go.
        is_shown: whether that is so in this process, of several that share the run.
        rank: of this process.
        throttle: which of its steps are shown.
        number: which of the Preview's runs it is, from 0.
        failed: whether previews are off for the rest of it.
        pictures: makes those of its steps; None before the first that is shown.
    """

    sink: Background
    is_shown: bool
    rank: int
    throttle: Throttle
    number: int
    failed: bool = False
    warned_not_finite: bool = False
    pictures: StepPictures | None = None

    @property
    def takes(self) -> bool:
        """Return whether a picture of this run is shown in this process."""
        return self.is_shown and not self.failed

    def maker(
        self,
        index: int,
        count: int,
        kind: str,
        pixels: Callable[[], Pixels],
        shaped: Callable[[npt.NDArray[np.uint8]], Shaped],
    ) -> Make:
        """Return a function that makes a step's frame, in the sink's thread. It must not keep the
        step: that has tensors.

        Args:
            index, count: the step's, and how many there are.
            kind: how good the run's denoised latents are; "noisy" where there are none.
            pixels: waits for the pictures.
            shaped: gives them their size, and chooses among them.
        """

        def make() -> PreviewFrame:
            made = pixels()
            if not made.finite and not self.warned_not_finite:
                self.warned_not_finite = True
                self.sink.complain(f"latents are not finite at step {index}; these are shown black")
            source = kind if made.denoised or index + 1 == count else "noisy"
            images, videos = shaped(made.pixels)
            about = index, count, made.timestep
            return PreviewFrame(*about, images, source, videos, self.number, self.rank)

        return make
