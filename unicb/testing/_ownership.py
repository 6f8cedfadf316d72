"""Company: runs on models that others use too, nested and in threads, each have their own bits."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from unicb import (
    Callback,
    CFGCutoff,
    GuidanceInterval,
    GuidanceSchedule,
    PipelineBusyError,
    Step,
    bind,
    sibling,
)
from unicb.testing._base import Checks, Shout, failing_scheduler
from unicb.testing.harness import Case

#: Each has changed the calls of the denoiser by the end of the second of four steps.
_GUIDED: dict[str, Callable[[], Callback]] = {
    "CFGCutoff": lambda: CFGCutoff(cutoff_step_index=0),
    "GuidanceInterval": lambda: GuidanceInterval(0.6, 1.0),
    "GuidanceSchedule": lambda: GuidanceSchedule([(0.0, 3.0), (0.2, 0.5)]),
}


class AtStep(Callback):
    """Do something at the end of one step."""

    def __init__(self, index: int, do: Callable[[], object]) -> None:
        self.index, self.do = index, do

    def on_step_end(self, step: Step) -> None:
        if step.index == self.index:
            self.do()


class OwnershipChecks(Checks):
    @pytest.mark.parametrize("form", ["call", "keywords"])
    def test_call_form_is_the_call(self, form: str) -> None:
        """``callbacks(...)`` returns what the pipeline returns, and leaves nothing, also where a
        step has failed and the error is kept."""
        pipeline, case = self.pipeline(), self.case()
        plain = self.harness.run(pipeline, case)
        before = self.harness.traces(pipeline)

        def fail() -> None:
            raise LookupError

        expected = self.harness.run(pipeline, case, **bind(pipeline, CFGCutoff(0.25)))
        assert (expected != plain).any()
        callbacks = bind(pipeline, CFGCutoff(0.25))
        assert (self._run(pipeline, case, callbacks, form) == expected).all()
        assert (callbacks.state, self.harness.traces(pipeline)) == ("finished", before)
        callbacks = bind(pipeline, CFGCutoff(cutoff_step_index=0), AtStep(1, fail))
        with pytest.raises(LookupError) as kept:
            self._run(pipeline, case, callbacks, form)
        assert (callbacks.state, self.harness.traces(pipeline)) == ("failed", before)
        assert (self.harness.run(pipeline, case) == plain).all()
        assert kept.traceback

    @pytest.mark.parametrize("form", ["call", "keywords"])
    @pytest.mark.parametrize("guided", list(_GUIDED))
    @pytest.mark.parametrize("prompts", [1, 2], ids=["same rows", "other rows"])
    def test_nested_pipeline_on_the_same_model(self, guided: str, form: str, prompts: int) -> None:
        """A callback calls another pipeline on the run's denoiser: both pictures are what they are
        alone."""
        pipeline, case, within = self.pipeline(), self.case(), self.case(prompts=prompts)
        other = sibling(pipeline)
        alone = self.harness.run(other, within)
        bound_alone = self._run(other, within, bind(other, _GUIDED[guided]()), form)
        right = self._run(pipeline, case, bind(pipeline, _GUIDED[guided]()), form)
        inner: list[npt.NDArray[Any]] = []

        def nested() -> None:
            inner.append(self.harness.run(other, within))
            inner.append(self._run(other, within, bind(other, _GUIDED[guided]()), form))

        callbacks = bind(pipeline, _GUIDED[guided](), AtStep(1, nested))
        assert (self._run(pipeline, case, callbacks, form) == right).all()
        assert (inner[0] == alone).all()
        assert (inner[1] == bound_alone).all()

    @pytest.mark.parametrize("form", ["call", "keywords"])
    @pytest.mark.parametrize("guided", list(_GUIDED))
    def test_model_called_by_a_callback(self, guided: str, form: str) -> None:
        """The denoiser answers a callback with both halves, as it does outside of any run."""
        pipeline, case = self.pipeline(), self.case()
        denoiser = getattr(pipeline, self.facts(pipeline).denoisers[0])
        calls: list[tuple[Any, Any]] = []

        def note(call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            calls.append((args, kwargs))
            return call(*args, **kwargs)

        undo = self.harness.spy(pipeline, note)
        self.harness.run(pipeline, case)
        undo()
        args, kwargs = calls[1]
        with self.harness.backend.fork_rng():
            right = self._host(denoiser(*args, **kwargs))
        found: list[npt.NDArray[Any]] = []

        def call() -> None:
            with self.harness.backend.fork_rng():
                found.append(self._host(denoiser(*args, **kwargs)))

        plain = self._run(pipeline, case, bind(pipeline, _GUIDED[guided]()), form)
        callbacks = bind(pipeline, _GUIDED[guided](), AtStep(1, call))
        assert (self._run(pipeline, case, callbacks, form) == plain).all()
        assert (found[0] == right).all()

    @pytest.mark.parametrize("form", ["call", "keywords"])
    def test_model_called_by_another_thread(self, form: str) -> None:
        """Another pipeline runs on the denoiser, in a thread of its own, in the middle of a cut
        step."""
        if self.harness.one_thread:
            return
        pipeline, case = self.pipeline(), self.case()
        other = sibling(pipeline)
        alone, threads = self.harness.run(other, case), list[threading.Thread]()
        right = self._run(pipeline, case, bind(pipeline, CFGCutoff(cutoff_step_index=0)), form)
        found: list[npt.NDArray[Any]] = []

        def beside(call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if len(ended) == 2 and not threads:
                run = threading.Thread(target=lambda: found.append(self.harness.run(other, case)))
                threads.append(run)
                run.start()
                run.join()
            return call(*args, **kwargs)

        ended: list[int] = []

        def note(pipeline: Any, index: int, timestep: Any, tensors: Any) -> None:
            ended.append(index)

        undo = self.harness.spy(pipeline, beside)
        try:
            callbacks = bind(pipeline, CFGCutoff(cutoff_step_index=0), note, tensor_inputs=[])
            out = self._run(pipeline, case, callbacks, form)
        finally:
            undo()
        assert (out == right).all()
        assert (found[0] == alone).all()

    @pytest.mark.parametrize("form", ["call", "keywords"])
    def test_loop_that_failed_holds_nothing(self, form: str) -> None:
        """Its error is kept, and with it the loop's frame: the next plain call is plain."""
        pipeline, case = self.pipeline(), self.case()
        plain = self.harness.run(pipeline, case)
        before = self.harness.traces(pipeline)
        callbacks = bind(pipeline, CFGCutoff(cutoff_step_index=0))
        with pytest.raises(Shout) as kept, failing_scheduler(pipeline, call=3):
            self._run(pipeline, case, callbacks, form)
        # Who has made the call knows that it has ended; elsewhere, the next one shows it.
        assert form == "keywords" or self.harness.traces(pipeline) == before
        assert (self.harness.run(pipeline, case) == plain).all()
        assert self.harness.traces(pipeline) == before
        assert kept.traceback

    def test_one_run_at_a_time_on_one_pipeline(self) -> None:
        """A second is refused at once; one on a sibling is not; and the first has its bits."""
        pipeline, case = self.pipeline(), self.case()
        plain = self.harness.run(pipeline, case)
        refused: list[bool] = []

        def again() -> None:
            with suppress(PipelineBusyError):
                self.harness.run(bind(pipeline), case)
                refused.append(False)
            other = sibling(pipeline)
            refused.append((self.harness.run(bind(other), case) == plain).all())

        out = self.harness.run(bind(pipeline, AtStep(1, again)), case)
        assert (out == plain).all()
        assert refused == [True]

    def test_reading_a_binding_changes_nothing(self) -> None:
        """Reading all that a binding tells, before a run and after it, leaves nothing behind."""
        pipeline, case = self.pipeline(), self.case()
        self.harness.run(pipeline, case)
        before = self.harness.traces(pipeline)
        callbacks = bind(pipeline, GuidanceInterval(0.5, 1.0))
        for state in ("pending", "finished"):
            for look in (dict, repr, list):
                look(callbacks)
                assert (callbacks.state, self.harness.traces(pipeline)) == (state, before)
            self.harness.run(callbacks, case)

    def _run(self, pipeline: Any, case: Case, callbacks: Any, form: str) -> npt.NDArray[Any]:
        if form == "call":
            return self.harness.run(callbacks, case)
        return self.harness.run(pipeline, case, **callbacks)

    def _host(self, out: Any) -> npt.NDArray[Any]:
        return np.asarray(self.harness.backend.ops.to_numpy(self.sample_of(out)))
