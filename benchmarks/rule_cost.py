"""Measure what a guidance rule costs at each step, beside diffusers' guider that does the same.

    python benchmarks/rule_cost.py

On predictions of the size that Stable Diffusion XL and SD3 or Flux have for two pictures; writes
docs/benchmarks/rule_cost-torch.json. Takes some seconds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from _common import Figure, figure, interleaved, parser, write
from _frameworks import framework

from unicb import (
    AdaptiveProjectedGuidance,
    ClassifierFreeZeroStarGuidance,
    GuidanceRescale,
    GuidanceRule,
    TangentialClassifierFreeGuidance,
)
from unicb.backend import get_backend

TITLE = "What a guidance rule costs"
METHOD = """\
Of two predictions of random numbers in float32, on a CPU with one thread, of the sizes that
denoisers of two pictures of 1024 by 1024 give: what a rule makes of them and what is handed to the
loop for it, and what diffusers' guider of the same method makes of them. All in turn in every
round; a round is the median of ten calls. On a GPU it is the number of operations that counts.

- **ours**, **theirs**: milliseconds for a step, of the processor's time.
- **ours to theirs**: their ratio, round by round.
"""
SHAPES = ((2, 4, 128, 128), (2, 16, 128, 128))
SCALE, CALLS = 5.0, 10


class Plain(GuidanceRule):
    """Combine as loops do by themselves."""

    def combine(self, unconditional: Any, conditional: Any, scale: Any, step: Any) -> Any:
        return unconditional + (conditional - unconditional) * scale


class OneStep:
    """``OneStep`` answers what rules ask of a step."""

    index, num_timesteps, progress = 5, 20, 0.25

    def __init__(self, ops: Any) -> None:
        self.ops = ops
        self._kept: dict[int, Any] = {}

    def state(self, rule: object, make: Callable[[], Any]) -> Any:
        return self._kept.setdefault(id(rule), make())


def methods() -> dict[str, tuple[GuidanceRule, Any]]:
    """Return our rule and diffusers' guider for each method."""
    from diffusers import guiders

    adaptive = guiders.AdaptiveProjectedGuidance(
        SCALE,
        adaptive_projected_guidance_momentum=-0.5,
        adaptive_projected_guidance_rescale=2.5,
        eta=0.0,
    )
    return {
        "plain": (Plain(), guiders.ClassifierFreeGuidance(SCALE)),
        "adaptive projected": (
            AdaptiveProjectedGuidance(eta=0.0, norm=2.5, momentum=-0.5), adaptive,
        ),
        "zero star": (
            ClassifierFreeZeroStarGuidance(zero_init_steps=0),
            guiders.ClassifierFreeZeroStarGuidance(SCALE, zero_init_steps=0),
        ),
        "tangential": (
            TangentialClassifierFreeGuidance(), guiders.TangentialClassifierFreeGuidance(SCALE),
        ),
        "rescaled": (
            GuidanceRescale(Plain(), 0.7),
            guiders.ClassifierFreeGuidance(SCALE, guidance_rescale=0.7),
        ),
    }  # fmt: skip


def milliseconds(call: Callable[[], object]) -> float:
    found = []
    for _ in range(CALLS):
        began = time.thread_time()
        call()
        found.append(time.thread_time() - began)
    return 1e3 * statistics.median(found)


def contestants(shape: tuple[int, ...]) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield what is called, by names such as ``ours: plain``; each gives the prediction."""
    fw, ops = framework("torch"), get_backend("torch").ops
    random = np.random.default_rng(0)
    c = fw.tensor(random.normal(size=shape))
    u = c + 0.1 * fw.tensor(random.normal(size=shape))
    for name, (rule, guider) in methods().items():
        step = OneStep(ops)

        def ours(rule: GuidanceRule = rule, step: Any = step) -> Any:
            made = rule.combine(u, c, SCALE, step)
            c - (made - c) / 1.0  # what unicb hands to the loop
            return made

        def theirs(guider: Any = guider) -> Any:
            guider.set_state(step=5, num_inference_steps=20, timestep=None)
            return guider.forward(c, u).pred

        guider.set_state(step=0, num_inference_steps=20, timestep=None)
        guider.prepare_inputs({})  # its momentum begins
        yield f"ours: {name}", ours
        yield f"theirs: {name}", theirs


def figures(repetitions: int) -> Iterator[Figure]:
    for shape in SHAPES:
        size = " x ".join(map(str, shape))
        called = {name: (lambda call=call: milliseconds(call)) for name, call in contestants(shape)}
        found = interleaved(called, repetitions, size)
        for name in methods():
            ours, theirs = found[f"ours: {name}"], found[f"theirs: {name}"]
            yield figure(f"{name}, {size}", "ours", "ms", ours)
            yield figure(f"{name}, {size}", "theirs", "ms", theirs)
            ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
            yield figure(f"{name}, {size}", "ours to theirs", "ratio", ratios)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser(__doc__, ["torch"]).parse_args(arguments)
    found = list(figures(options.repetitions))
    settings = {"repetitions": options.repetitions, "calls in a round": CALLS}
    write(options.out, "rule_cost", TITLE, METHOD, "torch", settings, found)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
