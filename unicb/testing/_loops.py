"""Loops that call no callback: the scheduler shows the end of a step, in a loop bound by its parts.

The pipeline's own loop stands for one that somebody wrote by hand, around its denoiser and its
scheduler.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from unicb import Callback, CFGCutoff, Loop, Step, bind
from unicb.given_classes import OWN
from unicb.testing._base import Checks, Shout, relative_error


class _Looks(Callback):
    """Note each step's index and latents; halve the latents of one step, or raise there."""

    tensors = ("latents",)

    def __init__(self, halves: int | None = None, raises: int | None = None) -> None:
        self._halves, self._raises = halves, raises
        self.steps: list[tuple[int, int]] = []
        self.latents: list[npt.NDArray[Any]] = []

    def on_step_end(self, step: Step) -> None:
        self.steps.append((step.index, step.num_timesteps))
        self.latents.append(step.ops.to_numpy(step["latents"]).copy())
        if step.index == self._halves:
            step["latents"] = step["latents"] * 0.5
        if step.index == self._raises:
            raise Shout


class LoopChecks(Checks):
    def test_loop_tells_every_step(self) -> None:
        """Callbacks get every step of a loop bound by its parts once, with the latents that its
        scheduler returns; and it makes what it makes by itself."""
        case = self.case()
        plain, look = self.harness.run(self.pipeline(), case), _Looks()
        with bind(self._parts(), look):
            out = self.harness.run(self.pipeline(), case)
        assert look.steps == [(i, case.steps) for i in range(case.steps)]
        assert np.array_equal(out, plain)
        assert relative_error(look.latents[-1], out) < 1e-5  # a loop may change their dtype

    def test_loop_goes_on_with_an_edit(self) -> None:
        """The scheduler returns to the loop what a callback writes."""
        case, by_callback = self.case(), _Looks(halves=1)
        expected = self.harness.run(self.pipeline(), case, **bind(self.pipeline(), by_callback))
        look = _Looks(halves=1)
        with bind(self._parts(), look):
            out = self.harness.run(self.pipeline(), case)
        assert np.array_equal(out, expected)
        assert not np.array_equal(out, self.harness.run(self.pipeline(), case))

    def test_loop_is_cut(self) -> None:
        """A cut in a loop whose guidance is said to come in a batch gives what it gives on the
        pipeline, with as few rows from the step on in which the loop has been seen to guide."""
        case, cutoff = self.case(), CFGCutoff(cutoff_step_index=1)
        facts = self.facts(self.pipeline())
        if facts.cfg != "batch":
            pytest.skip("the first kind does not guide in a batch")
        with self.spied(self.pipeline()) as expected_rows:
            expected = self.harness.run(self.pipeline(), case, **bind(self.pipeline(), cutoff))
        parts = self._parts(guidance="batch", order=facts.order)
        with self.spied(self.pipeline()) as rows, bind(parts, cutoff):
            out = self.harness.run(self.pipeline(), case)
        assert len(rows) == len(expected_rows)
        assert rows[-1] == expected_rows[-1] < rows[0]
        assert relative_error(out, expected) < 1e-5

    @pytest.mark.parametrize("raises", [None, 1])
    def test_loop_is_left_as_it_was(self, raises: int | None) -> None:
        """After the block, whether its loop has failed or not, nothing is on the scheduler, and no
        callback hears of its steps."""
        case, scheduler = self.case(), self.pipeline().scheduler
        look = _Looks(raises=raises)
        try:
            with bind(self._parts(), look):
                self.harness.run(self.pipeline(), case)
        except Shout:
            assert raises is not None
        seen = len(look.steps)
        self.harness.run(self.pipeline(), case)
        assert len(look.steps) == seen > 0
        assert "step" not in vars(scheduler)
        assert OWN not in vars(type(scheduler))  # no class of ours

    def _parts(self, **more: Any) -> Loop:
        """Return the parts of the first kind of pipeline, with the number of steps that it
        takes."""
        pipeline = self.pipeline()
        models = {name: getattr(pipeline, name) for name in self.facts(pipeline).denoisers}
        steps = self.case().steps
        return Loop(scheduler=pipeline.scheduler, num_timesteps=steps, **models, **more)
