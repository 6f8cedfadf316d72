"""Scales of IP-Adapters in runs of the zoo's pipelines, on either framework."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import ways

from unicb import Callback, CFGCutoff, Step, bind, sibling
from unicb.callbacks.ip_adapter import IPAdapterCutoff, IPAdapterScale
from zoo.entry import CASES

#: Entries of the zoo, and whether one number is what their own method takes for a scale.
TITLES = {
    "StableDiffusionPipeline (IP-Adapter)": True,
    "StableDiffusionPipeline (two IP-Adapters)": False,
    "StableDiffusionXLPipeline (IP-Adapter)": True,
    "StableDiffusion3Pipeline (IP-Adapter)": True,
    "FluxPipeline (ip-adapter)": True,
    "ChromaPipeline (ip-adapter)": True,
    "AnimateDiffPipeline (ip-adapter)": True,
}

Array = npt.NDArray[Any]


class Last(Callback):
    """Keeps the latents of the last step."""

    tensors = ("latents",)

    def on_step_end(self, step: Step) -> None:
        self.latents = step.ops.to_numpy(step["latents"])


class Look(Callback):
    """Keeps the scales that the run has at the end of each step, by attention."""

    def __init__(self) -> None:
        self.seen: list[list[Any]] = []

    def on_step_end(self, step: Step) -> None:
        with step.run.as_own():
            self.seen.append(scales(step.pipeline))


def processors(pipe: Any) -> list[Any]:
    model = pipe.unet if hasattr(pipe, "unet") else pipe.transformer
    return [p for p in model.attn_processors.values() if hasattr(p, "to_k_ip")]


def scales(pipe: Any) -> list[Any]:
    return [deepcopy(processor.scale) for processor in processors(pipe)]


def latents(name: str, title: str, *callbacks: Any, **more: Any) -> Array:
    """After the last step of a run of four."""
    entry, fx, pipe = _parts(name, title)
    case = next(case for case in CASES if case not in entry.impossible)
    last = Last()
    arguments = entry.arguments(fx, pipe, CASES[case])
    pipe(**{**arguments, **more}, **bind(pipe, *callbacks, last))
    return last.latents


def check(name: str, title: str, briefly: bool = False) -> None:
    """What unicb's callbacks do is what the pipeline's own method does at the ends of the same
    steps; guidance may be cut beside it; and each attention has its own scale again. ``briefly``:
    without guidance being cut."""
    pipe = _parts(name, title)[2]
    assert processors(pipe)
    one_number = TITLES[title]

    def by_hand(pipeline: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> None:
        if index == 1:
            count = len(processors(pipeline)[0].scale) if not one_number else 0
            pipeline.set_ip_adapter_scale(0.0 if one_number else [0.0] * count)

    odd = []
    for number, processor in enumerate(processors(pipe)):
        if isinstance(processor.scale, list):
            processor.scale[:] = [
                0.7 + 0.1 * number + 0.01 * i for i in range(len(processor.scale))
            ]
        else:
            processor.scale = 0.7 + 0.1 * number
        odd.append(deepcopy(processor.scale))
    kept = scales(pipe)
    assert kept == odd

    def again(wanted: Array, *callbacks: Any) -> Array:
        found = latents(name, title, *callbacks)
        assert scales(pipe) == kept
        assert np.abs(found - wanted).max() <= 1e-4 * wanted.std()
        return found

    full = latents(name, title)
    wanted = latents(name, title, by_hand)
    assert scales(pipe) != kept, "the pipeline's own method leaves the scale at 0"
    for processor, scale in zip(processors(pipe), kept, strict=True):
        processor.scale = deepcopy(scale)
    assert np.abs(wanted - full).max() > 1e-3 * full.std(), "the adapter changes nothing"
    again(wanted, IPAdapterCutoff(0.25))
    again(full)
    if briefly:
        return

    cut = latents(name, title, CFGCutoff(0.25), by_hand)
    for processor, scale in zip(processors(pipe), kept, strict=True):
        processor.scale = deepcopy(scale)
    again(cut, CFGCutoff(0.25), IPAdapterCutoff(0.25))
    again(cut, IPAdapterCutoff(0.25), CFGCutoff(0.25))


def check_schedule(name: str, title: str) -> None:
    """Each step computes with the scale of the schedule."""
    pipe = _parts(name, title)[2]
    pipe.set_ip_adapter_scale(0.9 if TITLES[title] else [0.9, 0.9])
    before = scales(pipe)
    look = Look()
    latents(name, title, IPAdapterScale([(0.0, 0.9), (0.5, 0.4), (0.75, 0.2)]), look)
    # At the ends of four steps: what the next step has.
    assert [np.unique(np.array(found)).tolist() for found in look.seen[:3]] == [[0.9], [0.4], [0.2]]
    assert scales(pipe) == before


def check_company(name: str, title: str) -> None:
    """On siblings of one denoiser, one inside the other: every picture has the bits that it has
    alone, also a plain one, and one after an error that is kept."""
    entry, fx, pipe = _parts(name, title)
    case = CASES[next(case for case in CASES if case not in entry.impossible)]
    other = sibling(pipe)
    schedule = [(0.0, 0.9), (0.5, 0.4), (0.75, 0.2)]
    pipe.set_ip_adapter_scale(0.9 if TITLES[title] else [0.9, 0.9])

    def picture(call: Any, one: Any, *more: Any) -> Array:
        last = Last()
        bound = bind(one, *call, *more, last)
        bound(**entry.arguments(fx, one, case))
        return last.latents

    calls: list[list[Callback]] = [[], [IPAdapterScale(schedule)], [IPAdapterCutoff(0.25)]]
    alone = [picture(call, pipe) for call in calls]
    assert (alone[0] != alone[1]).any()
    assert (alone[1] != alone[2]).any()
    before, found = scales(pipe), list[Array]()

    def nested(pipeline: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> None:
        if index == 2:
            found.extend(picture(call, other) for call in calls)

    for number, call in enumerate(calls[1:], 1):
        found.clear()
        assert np.array_equal(picture(call, pipe, nested), alone[number])
        assert all(map(np.array_equal, found, alone))
        assert scales(pipe) == before

    def fail(*_: Any) -> None:
        raise LookupError

    with pytest.raises(LookupError) as kept:
        pipe(**entry.arguments(fx, pipe, case), **bind(pipe, IPAdapterCutoff(0.0), fail))
    assert np.array_equal(picture([], pipe), alone[0])
    assert scales(pipe) == before
    assert kept.traceback


def _parts(name: str, title: str) -> tuple[Any, Any, Any]:
    return ways.all_entries(name)[title], ways.framework(name), ways.pipeline(name, title)
