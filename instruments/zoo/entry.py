"""Say what the zoo knows of one pipeline class: how to build a tiny one, and how to call it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from zoo.framework import Framework


@dataclass(frozen=True)
class Request:
    """One way to call a pipeline."""

    prompts: int = 1
    images: int = 1
    steps: int = 4
    guided: bool = True

    @property
    def rows(self) -> int:
        """Return the rows of the latents."""
        return self.prompts * self.images


#: The cases that every class is run with.
CASES: Mapping[str, Request] = {
    "one prompt": Request(),
    "two prompts": Request(prompts=2),
    "two images per prompt": Request(images=2),
}


class Around(NamedTuple):
    """``Around`` is what a loop does to its latents around ``scheduler.step``, written by hand.

    Both take the locals of the loop and a tensor.

    Attributes:
        kept: gives what the loop goes on with, of what ``scheduler.step`` returned.
        to_step: gives what is to stand in ``scheduler.step``'s result for these latents.
        adds_noise: whether it puts back a picture with noise, so that what the model takes the
            finished latents to be follows from two steps only nearly.
    """

    kept: Callable[[Mapping[str, Any], Any], Any]
    to_step: Callable[[Mapping[str, Any], Any], Any]
    adds_noise: bool = False


@dataclass(frozen=True)
class Entry:
    """A pipeline class.

    Attributes:
        name: the class.
        build: makes a tiny pipeline with random weights.
        arguments: the arguments of the pipeline's call for a request: seeded, the same every time
            (a new generator included).
        impossible: cases that the pipeline cannot do by itself, with or without unicb, and why.
        variant: tells entries of the same class apart ("ip-adapter", "guess mode").
        frameworks: where it can be built.
        not_built: for a class that cannot be built here: why, as a sentence. The rest is unused.
        saves_less: why the steps after the cut save less than the share of unconditional rows.
        off_differs: why the pipeline, with guidance off, calls its denoiser otherwise than with
            the conditional rows of guidance on; empty where it does not.
        twice: whether its loop has each row of the latents twice.
        around: what its loop does to its latents around the step; None where that is nothing.
        returns: the output type with which it returns its latents, where no model decodes them.
    """

    name: str
    build: Callable[[Framework], Any]
    arguments: Callable[[Framework, Any, Request], dict[str, Any]]
    impossible: Mapping[str, str] = field(default_factory=dict)
    variant: str = ""
    frameworks: tuple[str, ...] = ("torch", "mindspore")
    not_built: str = ""
    saves_less: str = ""
    off_differs: str = ""
    twice: bool = False
    around: Around | None = None
    returns: str = ""

    @property
    def title(self) -> str:
        return f"{self.name} ({self.variant})" if self.variant else self.name
