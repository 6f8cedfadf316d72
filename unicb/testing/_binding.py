"""Binding: tensors reach the loop, steps tell the truth, and misuse is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from unicb import (
    Callback,
    CFGCutoff,
    Step,
    UnicbError,
    UnsupportedPipelineError,
    bind,
)
from unicb.testing._base import Checks, on_sampled_kinds
from unicb.testing.harness import Case


class BindingChecks(Checks):
    @on_sampled_kinds
    def test_same_case_gives_same_bits(self, kind: str) -> None:
        """The harness is deterministic, without which no other check means anything."""
        pipeline, case = self.pipeline(kind), Case(kind)
        first = self.harness.run(pipeline, case)
        assert first.dtype == np.float32
        assert np.isfinite(first).all()
        assert (first == self.harness.run(pipeline, case)).all()

    @on_sampled_kinds
    def test_untouched_run_is_bit_identical(self, kind: str) -> None:
        """Callbacks that read every tensor and change none change nothing."""
        pipeline, case = self.pipeline(kind), Case(kind, images_per_prompt=2)
        read: list[str] = []

        def look(pipe: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> None:
            read.extend(tensors)

        plain = self.harness.run(pipeline, case)
        out = self.harness.run(pipeline, case, **bind(pipeline, look))
        assert set(read) == set(pipeline._callback_tensor_inputs)
        assert (out == plain).all()

    @on_sampled_kinds
    def test_written_latents_reach_the_loop(self, kind: str) -> None:
        """The next callback reads what a callback writes, and the loop goes on with it."""
        pipeline, case = self.pipeline(kind), Case(kind)
        seen: list[float] = []

        class Scale(Callback):
            tensors = ("latents",)

            def on_step_end(self, step: Step) -> None:
                step["latents"] = step["latents"] * 0.0 + float(step.index)

        class Look(Callback):
            tensors = ("latents",)

            def on_step_end(self, step: Step) -> None:
                seen.append(float(step.ops.to_numpy(step["latents"]).mean()))

        out = self.harness.run(pipeline, case, **bind(pipeline, Scale(), Look()))
        steps = len(seen)
        assert seen == [float(i) for i in range(steps)]
        assert (out == steps - 1).all()

    def test_every_offered_tensor_reaches_the_loop(self, kind: str) -> None:
        """Whatever the pipeline offers to callbacks, it takes back: what is written at one step
        end is what the next one is handed (the latents, which change in between, aside)."""
        pipeline, case = self.pipeline(kind), Case(kind)
        lost: list[str] = []

        class Rewrite(Callback):
            tensors = tuple(n for n in pipeline._callback_tensor_inputs if n != "latents")

            def on_step_end(self, step: Step) -> None:
                for name in self.tensors:
                    if name in written and step[name] is not written[name]:
                        lost.append(name)
                    if step[name] is not None:
                        written[name] = step[name] = renewed(step[name])

        def renewed(value: Any) -> Any:
            return [renewed(item) for item in value] if isinstance(value, list) else value * 1.0

        written: dict[str, Any] = {}
        self.harness.run(pipeline, case, **bind(pipeline, Rewrite()))
        assert written
        assert sorted(set(lost)) == []

    def test_step_tells_the_truth(self) -> None:
        """index, num_timesteps, progress, timestep, pipeline and guidance_scale of every step."""
        pipeline, case = self.pipeline(), self.case(guidance_scale=3.5)
        handed: list[float] = []

        def note(pipe: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> None:
            handed.append(float(timestep))

        seen: list[tuple[Any, ...]] = []

        class Look(Callback):
            def on_step_end(self, step: Step) -> None:
                same = step.pipeline is pipeline
                seen.append((step.index, step.num_timesteps, same, step.guidance_scale))
                assert isinstance(step.timestep, float)
                times.append(step.timestep)
                progress.append(step.progress)

        times: list[float] = []
        progress: list[float] = []
        self.harness.run(pipeline, case, **bind(pipeline, Look(), note))
        assert times == handed
        assert seen == [(i, 4, True, 3.5) for i in range(4)]
        assert times == sorted(times, reverse=True)
        assert len(set(times)) == 4
        assert progress == [0.25, 0.5, 0.75, 1.0]

    def test_guidance_scale_is_set_and_put_back(self) -> None:
        """A callback's guidance scale holds to the end of the run; then the pipeline has its
        own again."""
        pipeline, case = self.pipeline(), self.case(guidance_scale=3.5)
        plain = self.harness.run(pipeline, case)
        scales: list[float] = []

        class Raise(Callback):
            def on_step_end(self, step: Step) -> None:
                scales.append(step.guidance_scale)
                step.guidance_scale = 7.0

        out = self.harness.run(pipeline, case, **bind(pipeline, Raise()))
        assert scales == [3.5, 7.0, 7.0, 7.0]
        assert pipeline.guidance_scale == 3.5
        assert not (out == plain).all()

    def test_unknown_tensor_is_refused_at_bind(self) -> None:
        """A tensor that the pipeline does not offer is refused before the run, naming the
        pipeline, the tensor and those offered."""
        pipeline = self.pipeline()
        with pytest.raises(UnsupportedPipelineError) as caught:
            bind(pipeline, lambda *_: None, tensor_inputs=["lattents"])
        for part in (type(pipeline).__name__, "lattents", "latents, prompt_embeds"):
            assert part in str(caught.value)

    def test_second_pipeline_is_refused(self) -> None:
        """A binding that another pipeline calls says so."""
        pipeline = self.pipeline()
        other = self.harness.build(self.harness.kinds[0])
        with pytest.raises(UnicbError, match="another pipeline"):
            self.harness.run(other, self.case(), **bind(pipeline, CFGCutoff(0.5)))

    def test_two_runs_at_once_are_refused(self) -> None:
        """A run inside a run on one binding fails with an error that says so; the outer run
        gets the error, and the binding is free again."""
        pipeline, case = self.pipeline(), self.case()

        class RunAgain(Callback):
            def on_step_end(self, step: Step) -> None:
                if not started:
                    started.append(step.index)
                    suite.harness.run(pipeline, case, **callbacks)

        suite, started = self, list[int]()
        callbacks = bind(pipeline, RunAgain())
        with pytest.raises(UnicbError, match="in use by a run"):
            self.harness.run(pipeline, case, **callbacks)
        assert np.isfinite(self.harness.run(pipeline, case, **callbacks)).all()

    def test_function_must_return_a_dict_or_none(self) -> None:
        """A plain function that returns something else raises TypeError naming the function."""
        pipeline = self.pipeline()

        def returns_latents(pipe: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> Any:
            return tensors["latents"]

        with pytest.raises(TypeError, match="returns_latents"):
            self.harness.run(pipeline, self.case(), **bind(pipeline, returns_latents))
