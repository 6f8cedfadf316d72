"""Pipelines of blocks: the loop block shows the end of a step, and a guider guides."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from unicb import Callback, CFGCutoff, GuidanceSchedule, Interrupt, Step, bind
from unicb.given_classes import OWN
from unicb.testing._base import Checks, Shout, relative_error
from unicb.testing._modular_toy import STEPS, ToyModularPipeline


class _Looks(Callback):
    """Note each step; halve a tensor in one step, or raise there."""

    tensors = ("latents", "prompt_embeds")

    def __init__(self, halves: str = "", raises: bool = False) -> None:
        self._halves, self._raises = halves, raises
        self.steps: list[tuple[int, int]] = []
        self.latents: list[npt.NDArray[Any]] = []

    def on_step_end(self, step: Step) -> None:
        self.steps.append((step.index, step.num_timesteps))
        self.latents.append(step.ops.to_numpy(step["latents"]).copy())
        if step.index == 1 and self._halves:
            step[self._halves] = step[self._halves] * 0.5
        if step.index == 1 and self._raises:
            raise Shout


class ModularChecks(Checks):
    def test_modular_tells_every_step(self) -> None:
        """Callbacks get every step of a loop block once, with the latents in its state; and it
        makes what it makes by itself."""
        pipeline, look = self._modular(), _Looks()
        plain = self._called(pipeline)
        out = self._called(bind(pipeline, look))
        assert look.steps == [(i, STEPS) for i in range(STEPS)]
        assert np.array_equal(out, plain)
        assert np.array_equal(look.latents[-1], out)

    @pytest.mark.parametrize("name", ["latents", "prompt_embeds"])
    def test_modular_goes_on_with_an_edit(self, name: str) -> None:
        """The block's state has, in the next step, what a callback writes."""
        pipeline = self._modular()
        step = pipeline._blocks.loop_step

        def edited(components: Any, state: Any, **kwargs: Any) -> Any:
            components, state = step(components, state, **kwargs)
            if kwargs["i"] == 1:
                setattr(state, name, getattr(state, name) * 0.5)
            return components, state

        vars(pipeline._blocks)["loop_step"] = edited
        expected = self._called(pipeline)
        del vars(pipeline._blocks)["loop_step"]
        assert np.array_equal(self._called(bind(pipeline, _Looks(halves=name))), expected)
        assert not np.array_equal(self._called(pipeline), expected)

    def test_modular_guidance_is_the_guiders(self) -> None:
        """A cut is a guider that stops after the step, and saves its calls; a schedule of one scale
        is a guider of that scale."""
        pipeline = self._modular()
        plain, before = self._called(pipeline), pipeline.denoiser.calls
        cut = self._called(bind(pipeline, CFGCutoff(cutoff_step_index=1)))
        assert pipeline.denoiser.calls - before == STEPS + 2
        scaled = self._called(bind(pipeline, GuidanceSchedule([(0.0, 3.0)])))
        assert np.array_equal(self._called(pipeline), plain)
        pipeline.guider._stop = 2 / STEPS
        assert relative_error(cut, self._called(pipeline)) < 1e-6
        pipeline.guider._stop, pipeline.guider.guidance_scale = 1.0, 3.0
        assert relative_error(scaled, self._called(pipeline)) < 1e-6
        assert relative_error(cut, plain) > 1e-3

    def test_modular_stops(self) -> None:
        """An interrupted run gives the latents of its step, and computes no further one."""
        pipeline, look = self._modular(), _Looks()
        out = self._called(bind(pipeline, look, Interrupt(1, picture="latents")))
        assert np.array_equal(out, look.latents[1])
        assert pipeline.denoiser.calls == 4

    @pytest.mark.parametrize("raises", [False, True])
    def test_modular_is_left_as_it_was(self, raises: bool) -> None:
        """After the call, whether it has failed or not, nothing is on blocks and guider, and no
        callback hears of further steps."""
        pipeline, look = self._modular(), _Looks(raises=raises)
        callbacks = bind(pipeline, CFGCutoff(0.0), look)
        if raises:
            with pytest.raises(Shout):
                self._called(callbacks)
        else:
            self._called(callbacks)
        seen = len(look.steps)
        self._called(pipeline)
        assert len(look.steps) == seen > 0
        for part in (pipeline._blocks, pipeline.guider):
            assert OWN not in vars(type(part))  # no class of ours

    def _modular(self) -> ToyModularPipeline:
        return ToyModularPipeline(
            lambda array: self.harness.tensor(array, "float32"), self.pipeline()
        )

    def _called(self, call: Any) -> npt.NDArray[Any]:
        return np.asarray(self.harness.backend.ops.to_numpy(call())).copy()
