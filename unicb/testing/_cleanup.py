"""Cleanup: errors reach the caller, and nothing of a run is left behind, however it ends."""

from __future__ import annotations

import copy
import gc
from typing import Any

import pytest

from unicb import Callback, CFGCutoff, Step, bind
from unicb.testing._base import Checks, Shout, failing_scheduler, on_sampled_kinds
from unicb.testing.harness import Case


class FailAt(Callback):
    def __init__(self, index: int) -> None:
        self.index = index

    def on_step_end(self, step: Step) -> None:
        if step.index == self.index:
            raise Shout


class CleanupChecks(Checks):
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
