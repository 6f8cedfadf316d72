"""Say what the zoo knows of one modular pipeline: how to build a tiny one, and how to call it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from unicb.pipelines.modular import blocks_of
from zoo.entry import Request
from zoo.framework import Framework

#: Blocks that need text encoders, or that would make pictures of the latents.
_LEFT_OUT = ("text_encoder", "prompt_enhancer", "prompt_upsampler", "prompt_upsample", "decode")

_GUIDERS = ("guider", "guider_2", "audio_guider")


@dataclass(frozen=True)
class ModularEntry:
    """A modular pipeline.

    Attributes:
        name: the class.
        parts: a function that makes its models, by the names of its components.
        arguments: a function that returns the arguments of its call for a request: seeded, the same
            every time.
        variant: tells entries of the same class apart.
        left_out: names of its outermost blocks that it is built without, beside those that need
            text encoders.
        impossible: cases that the pipeline cannot do by itself, with or without unicb, and why.
        frameworks: names of the frameworks on which it can be built.
        unguided: for a loop without a guider: a function that turns guidance off for one step,
            called with the block's state and the step's index.
        scaled: for such a loop: a function that returns the arguments of a call with this guidance
            scale.
        cells: (frames, height, width) in cells, of latents that are returned as tokens.
        patched: True: the returned latents have 2x2 cells as channels.
        bound_alone: True: ``bind`` refuses the pipeline, which is therefore built without models.
        stops_otherwise: what a stopped run returns besides the latents of the stop.
        not_built: why it cannot be built here, as a sentence; the other fields are then unused.
    """

    name: str
    parts: Callable[..., dict[str, Any]]
    arguments: Callable[[Framework, Request], dict[str, Any]]
    variant: str = ""
    left_out: tuple[str, ...] = ()
    impossible: Mapping[str, str] = field(default_factory=dict)
    frameworks: tuple[str, ...] = ("torch",)
    unguided: Callable[[Any, int], None] | None = None
    scaled: Callable[[float, Request], dict[str, Any]] | None = None
    cells: tuple[int, ...] = ()
    patched: bool = False
    bound_alone: bool = False
    stops_otherwise: str = ""
    not_built: str = ""

    @property
    def title(self) -> str:
        """Return the class, and the variant."""
        return f"{self.name} ({self.variant})" if self.variant else self.name

    def build(self, fx: Framework, **parts: Any) -> Any:
        """Return a tiny pipeline of its class.

        Args:
            parts: in the place of those that it comes with, or that are made here; models that
                are made anew have other weights.
        """
        kind = getattr(fx.library, self.name)
        blocks = blocks_of(kind())
        if self.bound_alone:
            return kind()
        for name in (*_LEFT_OUT, *self.left_out):
            blocks.sub_blocks.pop(name, None)
        pipeline = kind(blocks=blocks)
        found = {**self.parts(fx), **parts}
        has = {*pipeline.component_names, *pipeline._config_specs}
        # One library takes no models here that were not loaded.
        put = pipeline.update_components if fx.name == "torch" else pipeline.register_components
        put(**{key: part for key, part in found.items() if key in has})
        pipeline.set_progress_bar_config(disable=True)
        _quiet(blocks_of(pipeline))
        for name in _GUIDERS:
            if (made := getattr(pipeline, name, None)) is not None and name not in parts:
                made.guidance_scale = 5.0  # some come with 1, which is no guidance, or disabled
                made.enable()
        return pipeline


def _quiet(block: Any) -> None:
    """Have the loops in a block show no progress bar."""
    if hasattr(block, "set_progress_bar_config"):
        block.set_progress_bar_config(disable=True)
    for inner in (getattr(block, "sub_blocks", None) or {}).values():
        _quiet(inner)
