"""What each of two workers that msrun has started does: every case is made on both, at once.

    msrun --worker_num=2 ... mindspore_cases.py FOLDER CASE...

A group is given to bind, for no model of mindone says that it is spread over ranks. The workers run
the pipeline data-parallel: each has all of it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mindspore
import numpy as np
from launched import Case, cases_of, make
from mindone.diffusers import DiffusionPipeline
from mindspore.communication import GlobalComm, get_rank, init

from unicb import (
    Callback,
    CFGCutoff,
    GenerationCancelled,
    Interrupt,
    Preview,
    RankError,
    Step,
    bind,
)
from zoo.entry import Entry, Request
from zoo.families import entries
from zoo.framework import MindSpore

CASES: dict[str, Case] = {}
case = cases_of(CASES)
STEPS = 5
#: Of two runs of one request; the first in a process may differ from later ones by 2.7e-6.
TOLERANCE = 1e-5


class At(Callback):
    """Does something at a step's end, on one rank."""

    tensors = ("latents",)

    def __init__(self, do: Callable[[Step], Any], step: int, rank: int) -> None:
        self.do, self.step, self.is_mine = do, step, rank == get_rank()
        self.seen: list[int] = []

    def on_step_end(self, step: Step) -> None:
        self.seen.append(step.index)
        if self.is_mine and step.index == self.step:
            self.do(step)


def interrupt(step: Step) -> None:
    step.interrupt(picture="latents")


def fail(step: Step) -> None:
    raise ValueError("boom")


class Tiny:
    """A tiny pipeline of mindone's, built once."""

    def __init__(self) -> None:
        self.fx = MindSpore()
        self.entry: Entry = next(
            each for each in entries() if each.name == "StableDiffusionPipeline"
        )
        self.pipeline = self.entry.build(self.fx)
        self.plain: dict[int, Any] = {}

    def run(self, *callbacks: Any, group: Any = None, **kwargs: Any) -> Any:
        arguments = self.entry.arguments(self.fx, self.pipeline, Request(steps=STEPS))
        self.binding = bind(self.pipeline, *callbacks, group=group, **kwargs)
        return self.binding(**arguments)[0].asnumpy()

    def shared(self, *callbacks: Any, **kwargs: Any) -> Any:
        return self.run(*callbacks, group=GlobalComm.WORLD_COMM_GROUP, **kwargs)

    def after(self, step: int) -> Any:
        """The latents after this step, in a run that is not shared."""
        if step not in self.plain:
            self.plain[step] = self.run(Interrupt(step, picture="latents"))
        return self.plain[step]


_tiny: list[Tiny] = []


def tiny() -> Tiny:
    if not _tiny:
        _tiny.append(Tiny())
    return _tiny[0]


def check_same(found: Any, expected: Any) -> None:
    assert float(np.abs(found - expected).max() / expected.std()) <= TOLERANCE


def _raises(kinds: Any, call: Callable[[], Any]) -> str:
    try:
        call()
    except kinds as error:
        return str(error)
    raise AssertionError("nothing was raised")


@case
def interrupt_from_each_rank(rank: int, folder: Path) -> Any:
    for agree, later in (("later", 1), ("now", 0)):
        for asker in range(2):
            at = At(interrupt, 1, asker)
            check_same(tiny().shared(at, agree=agree), tiny().after(1 + later))
            assert at.seen == list(range(2 + later))
            assert tiny().binding.state == "interrupted"
    return None


@case
def interrupt_at_the_last_step_and_of_all(rank: int, folder: Path) -> Any:
    check_same(tiny().shared(At(interrupt, STEPS - 1, 1)), tiny().after(STEPS - 1))
    check_same(tiny().shared(Interrupt(2, picture="latents")), tiny().after(2))
    check_same(tiny().shared(), tiny().after(STEPS - 1))
    return None


@case
def error_and_cancel(rank: int, folder: Path) -> Any:
    said = _raises((RankError, ValueError), lambda: tiny().shared(At(fail, 1, 0)))
    assert said == "boom" if rank == 0 else "a callback of rank 0 failed in step 1" in said, said
    cancels = At(lambda step: tiny().binding.cancel(now=True), 1, 1)
    _raises(GenerationCancelled, lambda: tiny().shared(cancels))
    check_same(tiny().shared(), tiny().after(STEPS - 1))
    return None


@case
def cut_and_different_callbacks(rank: int, folder: Path) -> Any:
    check_same(tiny().shared(CFGCutoff(0.4)), tiny().run(CFGCutoff(0.4)))
    said = _raises(RankError, lambda: tiny().shared(*([CFGCutoff(0.4)] if rank else [])))
    assert "have not bound the same" in said, said
    check_same(tiny().shared(), tiny().after(STEPS - 1))
    return None


@case
def shown_once(rank: int, folder: Path) -> Any:
    frames: list[Any] = []
    tiny().shared(Preview(frames), Preview(str(folder / "{rank}-{step}.png"), every=STEPS))
    assert len(frames) == (0 if rank else STEPS)
    assert (folder / f"{rank}-0.png").exists()
    return None


@case
def groups_that_bind_refuses(rank: int, folder: Path) -> Any:
    assert bind(tiny().pipeline)._bound.sharing is None  # a group is there, and not shared
    assert "takes the name of a group" in _raises(TypeError, lambda: bind(tiny().pipeline, group=3))
    _raises(RankError, lambda: bind(tiny().pipeline, group="no such group"))
    return None


class ToyLoop(DiffusionPipeline):
    """The frameworks' loop, with nothing in it: its latents count the steps."""

    _callback_tensor_inputs = ("latents",)

    def __init__(self) -> None:
        super().__init__()
        self.register_to_config(kind="toy")  # of which its attributes are asked

    @property
    def interrupt(self) -> bool:
        return self._interrupt

    @property
    def num_timesteps(self) -> int:
        return STEPS

    def __call__(
        self,
        callback_on_step_end: Any = None,
        callback_on_step_end_tensor_inputs: Any = ("latents",),
    ) -> Any:
        self._interrupt = False
        latents = mindspore.Tensor(np.zeros((1, 4, 2, 2), np.float32))
        for i in range(STEPS):
            if self.interrupt:
                continue
            latents = latents + 1
            outputs = callback_on_step_end(self, i, STEPS - i, {"latents": latents})
            latents = outputs.pop("latents", latents)
        return latents


@case
def toy_loop(rank: int, folder: Path) -> Any:
    group, pipeline, found = GlobalComm.WORLD_COMM_GROUP, ToyLoop(), []
    for agree in ("later", "now"):
        for asker in range(2):
            for step in (0, 2, STEPS - 1):
                latents = bind(pipeline, At(interrupt, step, asker), group=group, agree=agree)()
                found.append(int(latents.asnumpy().max()))
                bind(pipeline, group=group, agree=agree)()
    assert found == [2, 4, STEPS] * 2 + [1, 3, STEPS] * 2, found
    said = _raises((RankError, ValueError), lambda: bind(pipeline, At(fail, 1, 1), group=group)())
    assert said == "boom" if rank else "a callback of rank 1 failed in step 1" in said, said
    return found


def main(folder: Path, names: list[str]) -> None:
    mindspore.set_context(mode=mindspore.PYNATIVE_MODE, device_target="CPU")
    init()
    make(CASES, names, folder, get_rank())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
