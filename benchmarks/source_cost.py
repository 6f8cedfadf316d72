"""Measure what a bound callback that does nothing adds to a step, by how the step's end is noticed.

    python benchmarks/source_cost.py

Runs the same small loop as a pipeline that calls a callback, one that steps a scheduler alone, a
loop of one's own, and a pipeline of blocks, plain and bound, in turn; writes
docs/benchmarks/source_cost-torch.json. Takes a minute; the framework is used by none of them.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import numpy as np
from _common import Figure, figure, interleaved, parser, write

from unicb import Callback, Loop, Step, bind
from unicb.pipelines import PipelineFacts
from unicb.testing._modular_toy import Loop as LoopBlock
from unicb.testing._modular_toy import State, ToyModularPipeline
from unicb_numpy.ops import StrictTensor
from unicb_numpy.pipelines import ToyPipeline, ToyUNet

TITLE = "What noticing a step costs"
METHOD = """\
How much longer a step takes with a `Callback` bound that does nothing, by how its end is noticed: a
run's time for each of its steps, bound, less that of a plain run in the same round. The loops have
numpy's tensors of one number and compute next to nothing; each takes 200 steps, so that what a call
takes once is little. The target is what a callback may take.
"""
AT_MOST_US = 5.0
STEPS = 200


class Nothing(Callback):
    def on_step_end(self, step: Step) -> None:
        pass


class Scheduler:
    """Leaves the latents as they are."""

    order = 1

    def set_timesteps(self, count: int) -> list[float]:
        self.timesteps = [float(i) for i in range(count)]
        return self.timesteps

    def step(self, noise: Any, timestep: float, sample: Any) -> Any:
        return sample


class _Pipeline(ToyPipeline):
    unicb_facts = PipelineFacts("this file", denoisers=("unet",))

    def __init__(self) -> None:
        self.unet, self.scheduler = ToyUNet(), Scheduler()  # type: ignore[assignment]


class CallsBack(_Pipeline):
    _callback_tensor_inputs = ("latents",)

    def __call__(  # type: ignore[override]
        self,
        callback_on_step_end: Any = None,
        callback_on_step_end_tensor_inputs: Any = ("latents",),
    ) -> Any:
        latents = _latents()
        timesteps = self.scheduler.set_timesteps(STEPS)
        self._num_timesteps = len(timesteps)
        for i, t in enumerate(timesteps):
            latents = self.scheduler.step(latents, t, latents)
            if callback_on_step_end is not None:
                outputs = callback_on_step_end(self, i, t, {"latents": latents})
                latents = outputs.pop("latents", latents)
        return latents


class StepsAlone(_Pipeline):
    def __call__(self) -> Any:  # type: ignore[override]
        latents = _latents()
        timesteps = self.scheduler.set_timesteps(STEPS)
        for t in timesteps:
            latents = self.scheduler.step(latents, t, latents)
        return latents


class Empty:
    """A block inside the loop that does nothing."""

    sub_blocks: Mapping[str, Any] = {}
    inputs: tuple[Any, ...] = ()
    intermediate_outputs: tuple[Any, ...] = ()

    def __call__(self, components: Any, state: Any, i: int, t: float) -> tuple[Any, Any]:
        return components, state


class Blocks(ToyModularPipeline):
    def __init__(self) -> None:
        super().__init__(StrictTensor, ToyPipeline())
        self._blocks = LoopBlock()
        self._blocks.sub_blocks = {"empty": Empty()}

    def __call__(self, rows: int = 1) -> Any:
        state = State(timesteps=list(range(STEPS)), latents=_latents(), prompt_embeds=_latents())
        self._blocks(self, state)
        return state.latents


def _latents() -> StrictTensor:
    return StrictTensor(np.zeros((1, 1), np.float32))


def own_loop(parts: Loop, block: AbstractContextManager[Any]) -> Any:
    """Run the same loop, written here."""
    latents, scheduler = _latents(), parts.scheduler
    timesteps = scheduler.set_timesteps(STEPS)
    with block:
        for t in timesteps:
            latents = scheduler.step(latents, t, latents)
    return latents


def microseconds(run: Callable[[], object]) -> float:
    """Return how long a step of a run takes."""
    began = time.perf_counter()
    run()
    return (time.perf_counter() - began) / STEPS * 1e6


def contestants() -> dict[str, Callable[[], float]]:
    """Return the plain and the bound runs, by name."""
    found: dict[str, Callable[[], float]] = {}
    for name, pipeline in (
        ("callback", CallsBack()),
        ("scheduler", StepsAlone()),
        ("loop block", Blocks()),
    ):
        found[f"{name}: plain"] = partial(microseconds, pipeline)
        found[f"{name}: bound"] = partial(microseconds, bind(pipeline, Nothing()))
    parts = Loop(unet=ToyUNet(), scheduler=Scheduler())
    for said, block in (("plain", nullcontext()), ("bound", bind(parts, Nothing()))):
        found[f"own loop: {said}"] = partial(microseconds, partial(own_loop, parts, block))
    return found


def figures(rounds: Mapping[str, list[float]]) -> Iterator[Figure]:
    """Yield what being bound adds, by the source."""
    for name in ("callback", "scheduler", "own loop", "loop block"):
        plain, bound = (rounds[f"{name}: {said}"] for said in ("plain", "bound"))
        added = [x - y for x, y in zip(bound, plain, strict=True)]
        yield figure("a step of 200", name, "us", added, AT_MOST_US)
        yield figure("a plain step", name, "us", [statistics.median(plain)])


def main() -> int:
    options = parser(__doc__).parse_args()
    rounds = interleaved(contestants(), options.repetitions, "rounds")
    settings = {"steps": STEPS, "rounds": options.repetitions}
    found = list(figures(rounds))
    write(options.out, "source_cost", TITLE, METHOD, options.framework, settings, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
