"""Interrupt: a stop ends its run, from inside and from outside, and not the next one."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from unicb import Callback, GenerationCancelled, Interrupt, Step, bind
from unicb.latents.denoised import DenoisedEstimate
from unicb.testing._base import Checks, on_sampled_kinds
from unicb.testing.harness import Case


class InterruptChecks(Checks):
    @on_sampled_kinds
    def test_interrupt_stops_after_step(self, kind: str) -> None:
        """``Interrupt(k)`` lets k + 1 steps run, and the pipeline returns their latents, whether
        its loop reads an interrupt flag or runs out."""
        pipeline, case = self.pipeline(kind), Case(kind)
        seen: list[Any] = []

        def keep(pipe: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> None:
            seen.append(self.harness.backend.ops.to_numpy(tensors["latents"]))

        with self.spied(pipeline) as rows:
            stop = Interrupt(1, picture="latents")
            callbacks = bind(pipeline, keep, stop, tensor_inputs=["latents"])
            out = self.harness.run(pipeline, case, **callbacks)
        assert len(rows) == 2
        assert len(seen) == 2
        assert np.allclose(out, seen[-1])
        assert callbacks.state == "interrupted"
        assert callbacks.step == 1

    @on_sampled_kinds
    def test_interrupt_gives_the_denoised_picture(self, kind: str) -> None:
        """An interrupted run returns ``step.denoised()`` of its last step where the scheduler lets
        that be computed, and otherwise its latents."""
        pipeline, case = self.pipeline(kind), Case(kind)
        to_numpy = self.harness.backend.ops.to_numpy
        seen: list[Any] = []

        class Keep(Callback):
            tensors = ("latents",)

            def on_step_end(self, step: Step) -> None:
                x0, latents = step.denoised(), step["latents"]
                assert (x0 is None) == (step.denoised_kind == "none")
                if x0 is not None:
                    assert (x0.shape, x0.dtype) == (latents.shape, latents.dtype)
                seen.append((to_numpy(latents), None if x0 is None else to_numpy(x0)))

        out = self.harness.run(pipeline, case, **bind(pipeline, Keep(), Interrupt(2)))
        latents, x0 = seen[-1]
        known = DenoisedEstimate.kind_of(pipeline.scheduler) is not None
        assert len(seen) == 3
        assert (x0 is not None) == known
        assert np.allclose(out, latents if x0 is None else x0)
        assert np.allclose(out, latents) != known

    def test_interrupt_spares_next_run(self) -> None:
        """An interrupted run leaves no trace: the next plain run has all of its steps and bits."""
        pipeline, case = self.pipeline(), self.case()
        plain = self.harness.run(pipeline, case)
        self.harness.run(pipeline, case, **bind(pipeline, Interrupt(0)))
        assert (self.harness.run(pipeline, case) == plain).all()

    def test_interrupt_from_another_thread(self) -> None:
        """``binding.interrupt()`` in another thread stops the run at the end of its step, and that
        run only."""
        pipeline, case = self.pipeline(), self.case()

        class PressStop(Callback):
            def on_step_end(self, step: Step) -> None:
                if step.index == 1 and not pressed:
                    pressed.append(step.index)
                    thread = threading.Thread(target=callbacks.interrupt)
                    thread.start()
                    thread.join()

        pressed: list[int] = []
        callbacks = bind(pipeline, PressStop())
        # Kept: the end of the run is to end the stop, not the end of what the call was given.
        keywords = dict(callbacks)
        with self.spied(pipeline) as rows:
            self.harness.run(pipeline, case, **keywords)
            assert len(rows) == 2
            self.harness.run(pipeline, case, **callbacks)
        assert len(rows) == 2 + case.steps

    def test_interrupt_before_first_run(self) -> None:
        """A stop that comes before the run takes effect at the end of its first step, once."""
        pipeline, case = self.pipeline(), self.case()
        callbacks = bind(pipeline)
        assert callbacks.interrupt() is True
        with self.spied(pipeline) as rows:
            self.harness.run(pipeline, case, **callbacks)
            assert callbacks.interrupt() is False
            self.harness.run(pipeline, case, **callbacks)
        assert len(rows) == 1 + case.steps

    def test_cancel_raises_with_latents(self) -> None:
        """``binding.cancel()`` ends its run, and that run only, with GenerationCancelled, which has
        step, timestep and latents."""
        pipeline, case = self.pipeline(), self.case(prompts=2)
        seen: list[tuple[float, Any]] = []

        def look(pipe: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> None:
            host = self.harness.backend.ops.to_numpy(tensors["latents"])
            seen.append((float(timestep), host))

        callbacks = bind(pipeline, look, tensor_inputs=["latents"])
        callbacks.cancel()
        with pytest.raises(GenerationCancelled) as caught:
            self.harness.run(pipeline, case, **callbacks)
        assert caught.value.step == 0
        timestep, latents = seen[0]
        assert len(seen) == 1
        assert callbacks.state == "cancelled"
        assert caught.value.timestep == timestep
        assert np.array_equal(caught.value.latents, latents)
        self.harness.run(pipeline, case, **callbacks)
        assert len(seen) == 1 + case.steps
        assert callbacks.wait(0)
        assert str(callbacks.state) == "finished"

    def test_cancel_now_does_not_wait_for_the_step(self) -> None:
        """``binding.cancel(now=True)`` before the first step has ended raises before the denoiser
        is called, and leaves nothing behind on it."""
        pipeline, case = self.pipeline(), self.case()
        plain, before = self.harness.run(pipeline, case), self.harness.traces(pipeline)
        callbacks = bind(pipeline)
        assert callbacks.cancel(now=True) is True
        with self.spied(pipeline) as rows, pytest.raises(GenerationCancelled) as caught:
            self.harness.run(pipeline, case, **callbacks)
        assert rows == []
        assert (caught.value.step, callbacks.state) == (-1, "cancelled")
        assert self.harness.traces(pipeline) == before
        assert (self.harness.run(pipeline, case, **callbacks) == plain).all()
