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
        kept: a function that returns the latents with which the loop goes on, from the result of
            ``scheduler.step``.
        to_step: a function that returns the result of ``scheduler.step`` that makes the loop go on
            with these latents.
        adds_noise: True: the loop puts a picture back with noise, so that x0 computed from two
            steps is only an estimate.
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
        frameworks: names of the frameworks on which the class can be built.
        not_built: why the class cannot be built here, as a sentence; the other fields are then
            unused. Empty if it can.
        saves_less: why the steps after the cut save less than the share of unconditional rows.
        off_differs: why, with guidance off, the denoiser does not get the conditional rows of
            guidance on; empty if it does.
        twice: True: the loop has each row of the latents twice.
        around: what the loop does to its latents around the step; None if nothing.
        returns: the output type with which the pipeline returns its latents, if no model decodes
            them.
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
