"""Runs of the shapes checkpoint, with everything kept that the frameworks have to agree on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sides import Side

from unicb import Binding, Callback, Preview, PreviewFrame, Step, bind
from unicb.backend import backend_for

Array = npt.NDArray[Any]

CHECKPOINT = Path(__file__).resolve().parents[2] / "examples" / "shapes" / "checkpoint"
PROMPTS = (
    "a red star on a blue background",
    "a white ring on a black background",
    "a green cross on a white background",
    "a yellow triangle on a red background",
)
STEPS = 25
GUIDANCE = 5.0


@dataclass(repr=False)
class Record(Callback):
    """One run: what its steps were, and what came of it.

    Attributes:
        timesteps: the scheduler's, step by step.
        latents: those at the end of each step, ``[pictures, 4, 16, 16]``.
        previews: those of each step, ``[pictures, 16, 16, 3]``, 8 bits.
        rows: what the denoiser was called with.
        pictures: the result, ``[pictures, 64, 64, 3]``, in 0..1.
    """

    timesteps: list[float] = field(default_factory=list)
    latents: list[Array] = field(default_factory=list)
    previews: list[Array] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    pictures: Array = field(default_factory=lambda: np.empty(0))

    tensors = ("latents",)

    def on_step_end(self, step: Step) -> None:
        assert step.num_timesteps == STEPS
        assert step.index == len(self.timesteps)
        self.timesteps.append(step.timestep)
        self.latents.append(step.ops.to_numpy(step["latents"]))

    def keep_preview(self, frame: PreviewFrame) -> None:
        self.previews.append(np.stack([np.asarray(image) for image in frame.images]))


def load(side: Side) -> Any:
    pipe = side.package.StableDiffusionPipeline.from_pretrained(str(CHECKPOINT))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def set_scheduler(side: Side, pipe: Any, name: str) -> None:
    """Give the pipeline a new scheduler of that class, with the checkpoint's configuration."""
    kind = getattr(side.package, name)
    pipe.scheduler = kind.from_pretrained(str(CHECKPOINT), subfolder="scheduler")


def record_run(
    side: Side, pipe: Any, record: Record, binding: Binding, prompts: Sequence[str], seed: int
) -> None:
    """Run the pipeline from latents drawn by numpy, and fill in ``record``."""
    noise = np.random.default_rng(seed).normal(size=(len(prompts), 4, 16, 16))
    # Any float32 tensor of the pipeline's framework will do as the example to follow.
    latents = backend_for(pipe).ops.from_numpy(noise, like=pipe.scheduler.alphas_cumprod)
    with side.rows(pipe) as rows:
        record.pictures = pipe(
            list(prompts),
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            latents=latents,
            output_type="np",
            return_dict=False,
            **binding,
        )[0]
    record.rows = rows


def record_all(
    sides: dict[str, Side],
    pipes: dict[str, Any],
    scheduler: str,
    *callbacks: Callback,
    prompts: Sequence[str] = PROMPTS,
    seed: int = 0,
) -> dict[str, Record]:
    """Run each pipeline in turn, all bound before the first runs: the callbacks are the same
    objects for all.
    """
    records = {name: Record() for name in sides}
    bindings = {}
    for name, side in sides.items():
        set_scheduler(side, pipes[name], scheduler)
        own = (records[name], Preview(records[name].keep_preview))
        bindings[name] = bind(pipes[name], *callbacks, *own)
    for name, side in sides.items():
        record_run(side, pipes[name], records[name], bindings[name], prompts, seed)
    return records
