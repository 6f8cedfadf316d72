"""Measure what unicb itself costs at each step, beside the callbacks' own work.

    python benchmarks/machinery_cost.py --framework torch

Runs unicb's toy pipeline and a tiny Stable Diffusion with callbacks of several makes, in turn, and
writes docs/benchmarks/machinery_cost-<framework>.json. Takes one minute with torch, and some
with MindSpore.
"""

from __future__ import annotations

import functools
import importlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from _common import Figure, figure, interleaved, parser, write
from _tiny import arguments, build, zoo_framework

from unicb import Callback, Step, bind
from unicb.backend import backend_for
from unicb_numpy.pipelines import ToyPipeline

TITLE = "What unicb costs at each step"
METHOD = """\
How much longer a step takes with callbacks than with a plain function that does nothing, from the
end of the scheduler's step, once its latents are there, to the start of the loop's next pass: the
median over the steps of a run, less that function's in the same round. On unicb's toy pipeline,
whose tensors are numpy's, and on a Stable Diffusion of some thousand random weights. What the loop
does for its callback counts, too: for a `MultiPipelineCallbacks` of three, it collects the latents
three times.

- **no-op**: a function, and a `Callback`, that do nothing, given to `bind`.
- **waiting**: three callbacks that wait for a step that does not come, as cutoffs do at nearly all
  steps: written as one plain function; as three `PipelineCallback`s of the framework, in the way of
  its own cutoffs, in a `MultiPipelineCallbacks`; and as three `Callback`s given to `bind`.
- **clamping**: the same three ways to clamp the latents three times, all by the same function.
- **machinery** is what `bind` takes more than the one plain function that does the same.
"""
AT_MOST_US = 15.0
AT_MOST_RATIO = 1.5
THREE = range(3)
LIMIT = 4.0

#: ``(pipeline, step index, timestep, tensors) -> tensors``
Function = Callable[[Any, int, Any, dict[str, Any]], dict[str, Any]]
Clamp = Callable[[Any, float, float], Any]


def nothing(pipeline: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
    return tensors


def waiting(pipeline: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
    for _ in THREE:
        if index == int(pipeline.num_timesteps * 1.0):
            tensors["latents"] = tensors["latents"] * 0.5
    return tensors


def clamping(clamp: Clamp) -> Function:
    def function(
        pipeline: Any, index: int, timestep: Any, tensors: dict[str, Any]
    ) -> dict[str, Any]:
        for _ in THREE:
            tensors["latents"] = clamp(tensors["latents"], -LIMIT, LIMIT)
        return tensors

    return function


class Nothing(Callback):
    def on_step_end(self, step: Step) -> None:
        pass


class Waiting(Callback):
    tensors = ("latents",)

    def __init__(self, cutoff_step_ratio: float) -> None:
        self.cutoff_step_ratio = cutoff_step_ratio

    def on_step_end(self, step: Step) -> None:
        if step.index == int(step.num_timesteps * self.cutoff_step_ratio):
            step["latents"] = step["latents"] * 0.5


class Clamping(Callback):
    tensors = ("latents",)

    def on_step_end(self, step: Step) -> None:
        step["latents"] = step.ops.clamp(step["latents"], -LIMIT, LIMIT)


def of_the_framework(library: str, clamp: Clamp) -> dict[str, Callable[[], Any]]:
    """Return makers of three callbacks in one, by the framework's own classes."""
    module = importlib.import_module(f"{library}.callbacks")

    class OfficialWaiting(module.PipelineCallback):
        tensor_inputs = ["latents"]

        def callback_fn(
            self, pipeline: Any, step_index: int, timestep: Any, callback_kwargs: dict[str, Any]
        ) -> dict[str, Any]:
            ratio, at = self.config.cutoff_step_ratio, self.config.cutoff_step_index
            if step_index == (at if at is not None else int(pipeline.num_timesteps * ratio)):
                callback_kwargs["latents"] = callback_kwargs["latents"] * 0.5
            return callback_kwargs

    class OfficialClamping(module.PipelineCallback):
        tensor_inputs = ["latents"]

        def callback_fn(
            self, pipeline: Any, step_index: int, timestep: Any, callback_kwargs: dict[str, Any]
        ) -> dict[str, Any]:
            callback_kwargs["latents"] = clamp(callback_kwargs["latents"], -LIMIT, LIMIT)
            return callback_kwargs

    return {
        "waiting": lambda: module.MultiPipelineCallbacks([OfficialWaiting(1.0) for _ in THREE]),
        "clamping": lambda: module.MultiPipelineCallbacks([OfficialClamping(1.0) for _ in THREE]),
    }


def contestants(pipeline: Any, library: str) -> dict[str, Callable[[], Mapping[str, Any]]]:
    """Return makers of the two keyword arguments of a pipeline's call."""

    def given(callback: Any) -> dict[str, Any]:
        names = ["latents"]
        return {
            "callback_on_step_end": callback,
            "callback_on_step_end_tensor_inputs": names,
        }

    clamp: Clamp = backend_for(pipeline).ops.clamp
    official = of_the_framework(library, clamp)
    return {
        "nothing": lambda: given(nothing),
        "no-op: function, bound": lambda: bind(pipeline, nothing, tensor_inputs=["latents"]),
        "no-op: Callback, bound": lambda: bind(pipeline, Nothing()),
        "waiting: one function": lambda: given(waiting),
        "waiting: MultiPipelineCallbacks": lambda: given(official["waiting"]()),
        "waiting: bind": lambda: bind(pipeline, *(Waiting(1.0) for _ in THREE)),
        "clamping: one function": lambda: given(clamping(clamp)),
        "clamping: MultiPipelineCallbacks": lambda: given(official["clamping"]()),
        "clamping: bind": lambda: bind(pipeline, *(Clamping() for _ in THREE)),
    }


def passes(pipeline: Any) -> list[float]:
    """Have the pipeline note the seconds from each end of its scheduler's step to the start of the
    loop's next pass, where the loop reads its flag. Between them are the callbacks, and no model.

    Nothing is put around the callback: a frame between the loop and it would cost something, too.
    """
    seconds: list[float] = []
    ended = [0.0]
    kind, step = type(pipeline), pipeline.scheduler.step
    on_host = backend_for(pipeline).ops.to_numpy

    @functools.wraps(step)
    def timed_step(*args: Any, **kwargs: Any) -> Any:
        result = step(*args, **kwargs)
        # What a framework has yet to compute, in threads of its own, is no callback's cost.
        on_host(result[0] if isinstance(result, tuple) else result)
        ended[0] = time.perf_counter()
        return result

    def interrupt(self: Any) -> Any:
        seconds.append(time.perf_counter() - ended[0])
        return self._interrupt

    pipeline.scheduler.step = timed_step
    pipeline.__class__ = type(kind.__name__, (kind,), {"interrupt": property(interrupt)})
    return seconds


def microseconds(
    seconds: list[float], run: Callable[..., Any], make: Callable[[], Mapping[str, Any]]
) -> float:
    """Return how long a run's median step takes. Its first pass has no step before it; the first
    step prepares."""
    callbacks = make()
    seconds.clear()
    run(**callbacks)
    if len(seconds) < 4:
        raise SystemExit(f"only {len(seconds)} passes of the loop were seen: nothing is proven")
    return statistics.median(seconds[2:]) * 1e6


def figures(case: str, rounds: Mapping[str, list[float]]) -> Iterator[Figure]:
    """Yield the figures of one pipeline, from the microseconds of each contestant's rounds."""
    base = rounds["nothing"]
    added = {
        name: [x - y for x, y in zip(values, base, strict=True)]
        for name, values in rounds.items()
        if name != "nothing"
    }
    for work in ("waiting", "clamping"):
        of, to = added[f"{work}: bind"], added[f"{work}: MultiPipelineCallbacks"]
        ratios = (x / y for x, y in zip(of, to, strict=True))
        yield figure(
            case, f"{work}: bind to MultiPipelineCallbacks", "ratio", ratios, AT_MOST_RATIO
        )
    for name, values in added.items():
        yield figure(case, name, "us", values, AT_MOST_US if name == "waiting: bind" else None)
    for work in ("waiting", "clamping"):
        plain = added[f"{work}: one function"]
        more = (x - y for x, y in zip(added[f"{work}: bind"], plain, strict=True))
        yield figure(case, f"{work}: machinery", "us", more, AT_MOST_US)


def main() -> int:
    made = parser(__doc__)
    made.add_argument("--steps", type=int, default=12, help="of each run; default: 12")
    options = made.parse_args()
    if options.steps < 4:
        made.error(f"--steps must be at least 4, not {options.steps}")
    fx = zoo_framework(options.framework)
    toy, tiny = ToyPipeline(), build(fx, "StableDiffusionPipeline")
    runs = {
        "toy pipeline": (toy, partial(toy, "a lighthouse", num_inference_steps=options.steps)),
        "tiny Stable Diffusion": (tiny, partial(tiny, **arguments(fx, tiny, options.steps))),
    }
    found: list[Figure] = []
    for case, (pipeline, run) in runs.items():
        seconds = passes(pipeline)
        timed = {
            name: partial(microseconds, seconds, run, make)
            for name, make in contestants(pipeline, fx.library.__name__).items()
        }
        found += figures(case, interleaved(timed, options.repetitions, case))
    settings = {"steps": options.steps, "rounds": options.repetitions}
    write(options.out, "machinery_cost", TITLE, METHOD, options.framework, settings, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
