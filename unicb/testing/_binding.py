"""Binding: tensors reach the loop, errors the caller; misuse is refused, all is put back."""

from __future__ import annotations

import copy
import gc
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
from unicb.testing._base import Checks, Shout, failing_scheduler, on_sampled_kinds
from unicb.testing.harness import Case


class FailAt(Callback):
    def __init__(self, index: int) -> None:
        self.index = index

    def on_step_end(self, step: Step) -> None:
        if step.index == self.index:
            raise Shout


class BindingChecks(Checks):
    @on_sampled_kinds
    def test_same_case_gives_same_bits(self, kind: str) -> None:
        """The harness is deterministic, without which no other check means anything."""
        pipeline, case = self.pipeline(kind), Case(kind)
        first = self.harness.run(pipeline, case)
        assert first.dtype == np.float32
        assert np.isfinite(first).all()
        assert (first == self.harness.run(pipeline, case)).all()

    def test_harness_sees_what_is_left_behind(self, kind: str) -> None:
        """``traces`` changes when a model is hooked and is as before when the hook is gone,
        without which no check of what a run leaves behind means anything."""
        pipeline = self.pipeline(kind)
        self.harness.run(pipeline, Case(kind))
        facts = self.facts(pipeline)
        before = self.harness.traces(pipeline)
        for name in (*facts.denoisers, *facts.companions):
            model = getattr(pipeline, name)
            undo = self.harness.backend.hook(model, lambda call, args, kw: call(*args, **kw))
            assert self.harness.traces(pipeline) != before
            undo()
            assert self.harness.traces(pipeline) == before

    @pytest.mark.parametrize("first", [0, 1])
    def test_hooks_nest_and_go_in_any_order(self, first: int) -> None:
        """The later of two hooks on a model is called first, either may go first, and the other
        stays. So a run that has failed, and is cleaned up late, takes nothing from the next."""
        pipeline, case = self.pipeline(), self.case(steps=1)
        facts = self.facts(pipeline)
        self.harness.run(pipeline, case)
        before = self.harness.traces(pipeline)
        called: list[str] = []

        def noting(name: str) -> Any:
            def around(call: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
                called.append(name)
                return call(*args, **kwargs)

            return around

        model = getattr(pipeline, facts.denoisers[0])
        undo = [self.harness.backend.hook(model, noting(name)) for name in ("inner", "outer")]
        self.harness.run(pipeline, case)
        assert called == ["outer", "inner"]
        undo.pop(first)()
        self.harness.run(pipeline, case)
        assert called[2:] == [("outer", "inner")[first]]
        undo.pop()()
        assert self.harness.traces(pipeline) == before

    @on_sampled_kinds
    def test_copies_made_in_a_run_are_plain(self, kind: str) -> None:
        """Models that a step-end function copies after a cut have nothing of the run, answer their
        calls themselves, and give the plain run's bits. The run has the bits that it has without.
        """
        pipeline, case = self.pipeline(kind), Case(kind)
        plain = self.harness.run(pipeline, case)
        cutoff = CFGCutoff(cutoff_step_index=0)
        cut = self.harness.run(pipeline, case, **bind(pipeline, cutoff))
        before = self.harness.traces(pipeline)
        facts = self.facts(pipeline)
        models = {name: getattr(pipeline, name) for name in (*facts.denoisers, *facts.companions)}
        copies: dict[str, Any] = {}

        def copy_all(pipe: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> None:
            if index == 1:
                hooked.append(self.harness.traces(pipe) != before)
                copies.update(copy.deepcopy(models))

        hooked: list[bool] = []
        out = self.harness.run(pipeline, case, **bind(pipeline, cutoff, copy_all))
        assert hooked == [True]
        assert (out == cut).all()
        try:
            with self.spied(pipeline) as rows:
                for name, model in copies.items():
                    setattr(pipeline, name, model)
                assert self.harness.traces(pipeline) == before
                assert (self.harness.run(pipeline, case) == plain).all()
                again = self.harness.run(pipeline, case, **bind(pipeline, cutoff))
                assert (again == cut).all()
            assert rows == []
        finally:
            for name, model in models.items():
                setattr(pipeline, name, model)

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

    @on_sampled_kinds
    def test_exception_reaches_caller_and_all_is_put_back(self, kind: str) -> None:
        """An exception in a callback arrives unchanged; hooks are gone, and the next plain run
        is bit-identical to one before."""
        pipeline, case = self.pipeline(kind), Case(kind)
        plain = self.harness.run(pipeline, case)
        before = self.harness.traces(pipeline)
        callbacks = bind(pipeline, CFGCutoff(cutoff_step_index=0), FailAt(1))
        with pytest.raises(Shout) as caught:
            self.harness.run(pipeline, case, **callbacks)
        assert type(caught.value) is Shout
        assert self.harness.traces(pipeline) == before
        assert (self.harness.run(pipeline, case) == plain).all()

    def test_exception_in_the_loop_puts_all_back(self) -> None:
        """Nothing is left behind either when the pipeline itself fails between two step ends, where
        no callback is called."""
        pipeline, case = self.pipeline(), self.case()
        plain = self.harness.run(pipeline, case)
        before = self.harness.traces(pipeline)
        keywords = dict(bind(pipeline, CFGCutoff(cutoff_step_index=0)))  # which outlive the call
        with pytest.raises(Shout), failing_scheduler(pipeline, call=2):
            self.harness.run(pipeline, case, **keywords)
        gc.collect()
        assert self.harness.traces(pipeline) == before
        assert (self.harness.run(pipeline, case) == plain).all()

    def test_abandoned_run_does_not_touch_the_next(self) -> None:
        """While somebody keeps the traceback of a failed run, and with it the loop's frame, the
        next plain run is still a plain run."""
        pipeline, case = self.pipeline(), self.case()
        plain = self.harness.run(pipeline, case)
        callbacks = bind(pipeline, CFGCutoff(cutoff_step_index=0))
        kept: BaseException | None = None
        with self.spied(pipeline) as rows:
            try:
                with failing_scheduler(pipeline, call=2):
                    self.harness.run(pipeline, case, **callbacks)
            except Shout as error:
                kept = error
            assert kept is not None
            assert (self.harness.run(pipeline, case) == plain).all()
            self.harness.run(pipeline, case, **callbacks)
        plain_run = [2, 2, 2, 2]
        assert rows == [2, 1, *plain_run, 2, 1, 1, 1]

    def test_with_block_puts_all_back(self) -> None:
        """Leaving a ``with`` block undoes what a failed run has left, whoever keeps its frame."""
        pipeline, case = self.pipeline(), self.case()
        self.harness.run(pipeline, case)
        before = self.harness.traces(pipeline)
        kept: BaseException | None = None
        try:
            with (
                bind(pipeline, CFGCutoff(cutoff_step_index=0)) as callbacks,
                failing_scheduler(pipeline, call=2),
            ):
                self.harness.run(pipeline, case, **callbacks)
        except Shout as error:
            kept = error
        assert kept is not None
        assert self.harness.traces(pipeline) == before

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
