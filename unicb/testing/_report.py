"""Report: what is said of a run is what it did."""

from __future__ import annotations

import pytest

from unicb import CFGCutoff, Interrupt, Preview, bind
from unicb.sinks import PreviewFrame
from unicb.testing._base import Checks, on_sampled_kinds
from unicb.testing.harness import Case


class ReportChecks(Checks):
    @on_sampled_kinds
    def test_report_tells_the_rows_saved(self, kind: str) -> None:
        """The share of rows that a report says were saved by a cut is that of the denoiser's calls
        as they were seen; and so are the steps, the previews and the outcome."""
        pipeline, case = self.pipeline(kind), Case(kind, steps=5)
        frames: list[PreviewFrame] = []
        with self.spied(pipeline) as plain:
            self.harness.run(pipeline, case)
        callbacks = bind(pipeline, CFGCutoff(cutoff_step_index=1), Preview(frames))
        assert callbacks.report.outcome == "pending"
        with self.spied(pipeline) as cut:
            self.harness.run(pipeline, case, **callbacks)
        report = callbacks.report
        assert (report.outcome, report.steps) == ("finished", report.num_timesteps)
        assert report.rows_saved == pytest.approx(1 - sum(cut) / sum(plain))
        assert 0 < report.rows_saved < 1
        assert len(report.cuts) == 1
        assert report.callbacks["Preview"] == {"shown": len(frames), "dropped": 0}
        assert len(report.step_seconds) == report.steps - 1
        self.harness.run(pipeline, case, **bind(pipeline))
        assert callbacks.report == report, "of a run of another binding"

    @on_sampled_kinds
    def test_report_tells_who_stopped(self, kind: str) -> None:
        """A report names the callback that ended its run, and the step; of the next run on the
        binding it has nothing of the one before."""
        pipeline, case = self.pipeline(kind), Case(kind, steps=4)
        callbacks = bind(pipeline, Interrupt(1))
        self.harness.run(pipeline, case, **callbacks)
        report = callbacks.report
        assert (report.outcome, report.steps) == ("interrupted", 2)
        assert report.stopped == ("Interrupt", 1)
        free = bind(pipeline)
        free.interrupt()
        self.harness.run(pipeline, case, **free)
        assert free.report.stopped is not None
        assert free.report.stopped.by.startswith("interrupt()")
        self.harness.run(pipeline, case, **free)
        again = free.report
        assert (again.outcome, again.stopped) == ("finished", None)
