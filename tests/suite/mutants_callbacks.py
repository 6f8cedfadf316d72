"""Faults that callbacks show which read, keep, correct and replace what the loop computes with."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from mutation import after, edited, instead, mutant

import unicb.callbacks.nan_guard
from unicb import Run
from unicb.callbacks._ip_scales import HeldScales
from unicb.callbacks._prompt_rows import Rows
from unicb.callbacks._trajectory_files import TrajectoryFile
from unicb_numpy.harness import NumpyHarness
from unicb_numpy.ops import NumpyOps, StrictTensor
from unicb_numpy.pipelines import ToyPipeline

sys.path.insert(0, str(Path(__file__).parents[1]))

from adapted import AdaptedPipeline


class _Started(ToyPipeline):
    """The toy, which takes latents to start with; as the frameworks' pipelines do."""

    vae_scale_factor = 8

    def __init__(self) -> None:
        super().__init__()
        self.vae = SimpleNamespace(config=SimpleNamespace(latent_channels=4))
        self.unet.config = SimpleNamespace(  # type: ignore[attr-defined]
            in_channels=4, out_channels=4, sample_size=8
        )
        self.unet.dtype = np.float32  # type: ignore[attr-defined]

    def prepare_latents(
        self, batch_size: int, height: int, width: int, latents: StrictTensor | None = None
    ) -> StrictTensor:
        if latents is not None:
            return latents
        shape = (batch_size, 4, height // 8, width // 8)
        return StrictTensor(np.random.normal(size=shape).astype(np.float32))

    __call__ = edited(  # type: ignore[assignment]
        ToyPipeline.__call__,
        ('output_type: str = "np",', 'output_type: str = "np", latents: Any = None,'),
        (
            "latents = StrictTensor(noise.astype(self.dtype))",
            "latents = StrictTensor(noise.astype(self.dtype)) if latents is None else latents",
        ),
    )


class MoreCallbacks(NumpyHarness):
    """The reference, with all that callbacks can be tried on."""

    kinds = ("text2img", "prompts", "ip-adapter")

    def build(self, kind: str) -> Any:
        kinds = {"text2img": _Started, "prompts": ToyPipeline, "ip-adapter": AdaptedPipeline}
        return kinds[kind]()


class _Deaf(MoreCallbacks):
    """Its pipeline takes latents, and draws its own."""

    def run(self, pipeline: Any, case: Any, **keywords: Any) -> Any:
        keywords.pop("latents", None)
        return super().run(pipeline, case, **keywords)


def _late(append: Any) -> Any:
    def broken(self: TrajectoryFile, *args: Any) -> None:
        *rest, latents = args
        before, self.before = getattr(self, "before", latents), latents  # type: ignore[attr-defined]
        append(self, *rest, before)

    return broken


CALLBACKS = (
    mutant(
        "trajectory is a step late",
        "the host's copy is that of the step before",
        "trajectory_holds_the_latents",
        TrajectoryFile,
        "append",
        _late,
    ),
    mutant(
        "halves are widened in the file",
        "whatever the latents' dtype, float32 is written",
        "trajectory_holds_the_latents",
        TrajectoryFile,
        "append",
        lambda append: lambda self, *args: append(self, *args[:-1], args[-1].astype(np.float32)),
    ),
    mutant(
        "sums leave bad values out",
        "the device's matrix product takes NaN for 0",
        "guard_finds_bad_values",
        NumpyOps,
        "matmul",
        instead(
            lambda ops, a, b: StrictTensor(
                np.matmul(np.where(np.isnan(a.data), 0, a.data).astype(a.dtype), b.data)
            )
        ),
    ),
    mutant(
        "large numbers count as infinite",
        "the guard sums the latents as they are, and the sum overflows",
        "guard_finds_bad_values",
        unicb.callbacks.nan_guard,
        "_is_finite",
        instead(
            lambda latents, ops: bool(
                np.isfinite(latents.data.sum(dtype=latents.dtype) * latents.dtype.type(2))
            )
        ),
    ),
    mutant(
        "clamp knows no lower limit",
        "outliers below stay",
        "correction_is_numpys",
        NumpyOps,
        "clamp",
        instead(lambda ops, x, low, high: StrictTensor(np.minimum(x.data, high))),
    ),
    mutant(
        "a run's times start anew at each step",
        "what is kept of a run is not found again",
        "steps_are_timed_and_told",
        Run,
        "state",
        instead(lambda self, callback, make: make()),
    ),
    mutant(
        "concat puts the last part first",
        "rows of prompts are mixed up",
        "other_prompts_reach_the_loop",
        NumpyOps,
        "concat",
        instead(
            lambda ops, parts: StrictTensor(
                np.concatenate([part.data for part in (parts[-1], *parts[:-1])])
            )
        ),
        harness=MoreCallbacks,
    ),
    mutant(
        "prompts go into the unconditional rows, too",
        "the whole batch is exchanged",
        "other_prompts_reach_the_loop",
        Rows,
        "put",
        lambda put: (
            lambda self, backend, tensor, parts: put(
                self, backend, tensor, {**parts, "unconditional": parts["conditional"]}
            )
        ),
        harness=MoreCallbacks,
    ),
    mutant(
        "scales of adapters are everybody's",
        "the next run begins without the adapter",
        "adapter_is_switched_off",
        HeldScales,
        "assign",
        instead(lambda self, scale: self.adapters.assign(scale)),
        harness=MoreCallbacks,
    ),
    mutant(
        "initial latents are rounded",
        "from_numpy goes through half precision",
        "initial_latents_are_numpys",
        NumpyOps,
        "from_numpy",
        after(lambda made, *_, **__: StrictTensor(made.data.astype(np.float16).astype(made.dtype))),
        harness=MoreCallbacks,
    ),
    mutant(
        "given latents are not used",
        "the pipeline draws its own all the same",
        "initial_latents_are_numpys",
        harness=_Deaf,
    ),
)
