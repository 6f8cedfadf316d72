"""Measure what it costs at each step that a run can be stopped.

    python benchmarks/stop_cost.py --framework torch

Times the check at a step's end, from inside a run. Takes a few seconds, and writes
docs/benchmarks/stop_cost-<framework>.json.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial

from _common import figure, interleaved, parser, write
from _frameworks import framework
from _loop import denoising_loop, natural_latents

from unicb import Callback, Interrupt, Step, bind

TITLE = "What it costs that a run can be stopped"
METHOD = """\
A bare denoising loop with a callback that does nothing. In the middle of the run, what follows is
called 10000 times and timed: none of it asks the device for anything.

- **check**: has anybody asked for a stop, and are there steps left? This is all that a run pays.
- **Interrupt(...)**: the callback that stops after a step, at a step before that one.
- **Interrupt(deadline=...)**: the callback that looks at the clock.
"""
CALLS = 10_000


def microseconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    for _ in range(CALLS):
        call()
    return (time.perf_counter() - began) / CALLS * 1e6


class Measure(Callback):
    """Times what is called at a step's end, at the end of the second step."""

    def __init__(self, repetitions: int) -> None:
        self.repetitions = repetitions
        self.rounds: dict[str, list[float]] = {}
        self.goes_on: Callable[[], bool] | None = None

    def on_step_end(self, step: Step) -> None:
        if step.index != 1 or self.goes_on is None:
            return
        after, in_time = Interrupt(1000), Interrupt(deadline=1e6)
        calls: dict[str, Callable[[], object]] = {
            "check": self.goes_on,
            "Interrupt(...)": partial(after.on_step_end, step),
            "Interrupt(deadline=...)": partial(in_time.on_step_end, step),
        }
        timed = {name: partial(microseconds, call) for name, call in calls.items()}
        self.rounds = interleaved(timed, self.repetitions, "stops")


def main() -> int:
    options = parser(__doc__).parse_args()
    fx = framework(options.framework)
    scheduler = fx.library.EulerDiscreteScheduler()
    scheduler.set_timesteps(3)
    pipeline = denoising_loop(fx.library, scheduler, lambda x, _: x * 0.1)
    measure = Measure(options.repetitions)
    callbacks = bind(pipeline, measure)
    handle = callbacks._handle

    def goes_on() -> bool:
        """Ask as unicb.run.call does: in place, as a call would cost more."""
        run = handle.run
        return run.next_index is not None and handle.request is None

    measure.goes_on = goes_on
    pipeline(fx.tensor(natural_latents((1, 4, 8, 8))), scheduler.timesteps, **callbacks)
    figures = [
        figure("each step", name, "us", values, 2.0 if name == "check" else None)
        for name, values in measure.rounds.items()
    ]
    settings = {"calls": CALLS, "rounds": options.repetitions}
    write(options.out, "stop_cost", TITLE, METHOD, options.framework, settings, figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
