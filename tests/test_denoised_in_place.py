"""Loops that write into one tensor in each step: what the step began with is not there any more."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from modular_toy import Advance, Loop, ModularToy

from unicb import Callback, Interrupt, Step, bind
from unicb.pipelines.in_place import writes_into_latents


class InPlace(Advance):
    def __call__(self, components: Any, state: Any, i: int, t: Any) -> Any:
        latents = state.latents
        components, state = super().__call__(components, state, i, t)
        latents.data[...] = state.latents.data
        state.latents = latents
        return components, state


class Denoised(Callback):
    """Notes the estimate of each step; changes the latents of one."""

    tensors = ("latents",)

    def __init__(self, edits: bool) -> None:
        self.found: list[Any] = []
        self.kinds: list[str] = []
        self._edits = edits

    def on_step_end(self, step: Step) -> None:
        found = step.denoised()
        self.kinds.append(step.denoised_kind)
        self.found.append(None if found is None else found.data.copy())
        if self._edits and step.index == 2:
            step["latents"] = step["latents"] * 0.9


def run(in_place: bool, edits: bool = False, stop: bool = False) -> Any:
    loop = Loop()
    if in_place:
        loop.sub_blocks["advance"] = InPlace()
    pipe, denoised = ModularToy(loop=loop), Denoised(edits)
    stops = [Interrupt(3)] if stop else []
    latents = bind(pipe, denoised, *stops)("a lighthouse", output="latents")
    return denoised, latents


@pytest.mark.parametrize("edits", [False, True])
def test_estimates_are_those_of_a_loop_that_makes_new_ones(edits: bool) -> None:
    expected, _ = run(False, edits)
    found, _ = run(True, edits)
    assert set(expected.kinds[1:]) == {"exact"}
    # The second step's end shows what the loop does, and what that step began with is gone.
    assert found.kinds == ["none", "none", *expected.kinds[2:]]
    assert found.found[1] is None
    for ours, theirs in zip(found.found[2:], expected.found[2:], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_a_stopped_run_gives_the_same_picture() -> None:
    (_, expected), (_, found) = run(False, stop=True), run(True, stop=True)
    np.testing.assert_allclose(found, expected, atol=1e-5)


class SetsAPart:
    def __call__(self, latents: Any, mask: Any) -> Any:
        mask[0] = 1
        latents[:, :4] = mask
        return latents


class MakesNewOnes:
    def __call__(self, latents: Any, mask: Any) -> Any:
        mask[0] = 1
        latents = latents[:, :4] + mask
        return latents


def test_code_that_sets_a_part_says_so() -> None:
    assert writes_into_latents(SetsAPart)
    assert not writes_into_latents(MakesNewOnes)
    assert not writes_into_latents(type("Unread", (), {"__call__": len}))
