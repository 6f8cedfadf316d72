"""What a run did is what its report says."""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import threading
import warnings
import weakref
from collections.abc import Callable as Function
from functools import partial
from typing import Any

import pytest
from guided import BY_LOCAL, BY_PROPERTY, BatchOfLocal, watched
from modular_toy import Guider, ModularToy, SkipGuider, TermsGuider
from scheduled import ScheduledPipeline
from stop_helpers import WAIT, BlockPipeline, Hold, InThread

from unicb import (
    Callback,
    CFGCutoff,
    GenerationCancelled,
    GuidanceInterval,
    GuidanceSchedule,
    Interrupt,
    NaNGuard,
    Preview,
    Report,
    Run,
    Step,
    bind,
    run_async,
    stream,
)
from unicb.report import CutSpan
from unicb.sinks import Background, PreviewFrame
from unicb_numpy.pipelines import ToyPipeline

KINDS = [*BY_PROPERTY, *BY_LOCAL, ScheduledPipeline]
GUIDERS = [Guider, SkipGuider, TermsGuider]


@pytest.mark.parametrize(
    ("callback", "cuts"),
    [
        (partial(CFGCutoff, 0.4), [CutSpan(4)]),
        (partial(CFGCutoff, 0.0), [CutSpan(0)]),
        (partial(GuidanceInterval, 0.2, 0.6), [CutSpan(-1, 1), CutSpan(6)]),
    ],
    ids=["cutoff", "cutoff at once", "interval"],
)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_rows_saved_are_those_of_the_calls(
    kind: type[ToyPipeline], callback: Function[[], Callback], cuts: list[CutSpan]
) -> None:
    pipe = kind()
    call = partial(pipe, ["a", "b"], 10)
    with watched(pipe) as plain:
        call()
    callbacks = bind(pipe, callback())
    with watched(pipe) as rows:
        callbacks(["a", "b"], 10)
    report = callbacks.report
    assert report.rows_saved == pytest.approx(1 - sum(rows) / sum(plain))
    assert report.rows_saved >= 0.2
    assert [*report.cuts] == cuts


@pytest.mark.parametrize("guider", GUIDERS)
def test_rows_saved_of_a_guider(guider: Function[[], Any]) -> None:
    pipe = ModularToy(guider())
    pipe("a")
    plain, pipe.unet.calls = pipe.unet.calls, 0
    callbacks = bind(pipe, CFGCutoff(0.4))
    callbacks("a")
    assert callbacks.report.rows_saved == pytest.approx(1 - pipe.unet.calls / plain)
    assert callbacks.report.cuts == (CutSpan(4),)


def test_rows_saved_where_the_scale_cuts() -> None:
    """At a scale without guidance, a schedule cuts."""
    pipe = BatchOfLocal()
    with watched(pipe) as plain:
        pipe(["a"], 10)
    callbacks = bind(pipe, GuidanceSchedule([(0.0, 5.0), (0.5, 1.0)]))
    with watched(pipe) as rows:
        callbacks(["a"], 10)
    assert callbacks.report.rows_saved == pytest.approx(1 - sum(rows) / sum(plain)) == 0.25


def test_nothing_is_saved_without_guidance(pipe: ToyPipeline) -> None:
    callbacks = bind(pipe, CFGCutoff(0.4))
    callbacks("a", guidance_scale=1.0)
    assert callbacks.report.rows_saved == 0.0
    assert callbacks.report.cuts == ()


def test_an_empty_one_before_a_run(pipe: ToyPipeline) -> None:
    callbacks = bind(pipe)
    report = callbacks.report
    assert (report.outcome, report.steps, report.num_timesteps) == ("pending", 0, 0)
    assert str(report) == "ToyPipeline: pending, no step has ended"
    assert report.seconds_per_step is None
    callbacks("a")


def test_during_a_run(pipe: ToyPipeline) -> None:
    """It says what is known so far, to callbacks and to other threads."""
    hold = Hold(3)
    seen: list[Report] = []

    class Asks(Callback):
        def on_step_end(self, step: Step) -> None:
            seen.append(step.run.report)

    callbacks = bind(pipe, CFGCutoff(0.1), Preview([]), Asks(), hold)
    thread = InThread(partial(callbacks, "a"))
    assert hold.there.wait(WAIT)
    report = callbacks.report
    hold.go.set()
    thread.join()
    assert (report.outcome, report.steps, report.num_timesteps) == ("running", 3, 10)
    assert report.cuts == (CutSpan(1),)
    assert report.rows_saved == pytest.approx(2 * 0.5 / 3, abs=0.2)
    assert [one.steps for one in seen] == [*range(10)]
    assert {one.outcome for one in seen} == {"running"}
    assert callbacks.report.outcome == "finished"


def test_times(pipe: ToyPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first step from the call on, the others from one end to the next."""
    clock = iter([10.0 + 0.5 * number for number in range(100)])
    monkeypatch.setattr("unicb.run.run.monotonic", lambda: next(clock))
    callbacks = bind(pipe)
    callbacks("a", num_inference_steps=4)
    report = callbacks.report
    assert report.step_seconds == (0.5, 0.5, 0.5)
    assert report.seconds_per_step == 0.5
    assert report.first_step_seconds is not None
    assert report.decode_seconds is not None
    assert "then 500 ms a step (500 ms to 500 ms)" in str(report)


@pytest.mark.parametrize(
    ("stop", "by"),
    [
        (lambda callbacks: callbacks.interrupt(), "interrupt() in thread MainThread"),
        (lambda callbacks: callbacks.cancel(), "cancel() in thread MainThread"),
        (lambda callbacks: callbacks.cancel(now=True), "cancel() in thread MainThread"),
        (lambda callbacks: signal.raise_signal(signal.SIGINT), "Ctrl-C"),
    ],
    ids=["interrupt", "cancel", "cancel now", "Ctrl-C"],
)
def test_who_has_stopped_it(stop: Function[[Any], Any], by: str) -> None:
    pipe = BlockPipeline()
    stopped: list[bool] = []

    class Stops(Callback):
        def on_step_end(self, step: Step) -> None:
            if step.index == 2 and not stopped:
                stopped.append(True)
                stop(callbacks)

    callbacks = bind(pipe, Stops(), on_sigint="interrupt")
    is_cancelled = by.startswith("cancel")
    if is_cancelled:
        with pytest.raises(GenerationCancelled):
            callbacks("a")
    else:
        callbacks("a")
    report = callbacks.report
    assert report.outcome == ("cancelled" if is_cancelled else "interrupted")
    assert report.stopped == (by, 2)
    assert report.steps == 3
    assert f"after step 2, by {by}" in str(report)
    callbacks("a")
    assert (callbacks.report.stopped, callbacks.report.outcome) == (None, "finished")


def test_a_callback_that_stops_before_the_first_step(pipe: ToyPipeline) -> None:
    class Early(Callback):
        def before_first_step(self, step: Step) -> None:
            step.interrupt()

        def on_step_end(self, step: Step) -> None:
            pass

    callbacks = bind(pipe, Early())
    callbacks("a")
    assert callbacks.report.stopped == ("Early", -1)


def test_what_a_callback_cannot_report_costs_nothing(pipe: ToyPipeline) -> None:
    class Broken(Callback):
        fails = False

        def on_step_end(self, step: Step) -> None:
            if self.fails:
                raise KeyError("mine")

        def on_report(self, run: Run) -> Any:
            raise ValueError("no report")

    broken = Broken()
    callbacks = bind(pipe, broken)
    callbacks("a cat")
    assert callbacks.report.callbacks["Broken"] == {"on_report": "ValueError: no report"}
    broken.fails = True
    with pytest.raises(KeyError, match="mine"):
        callbacks("a cat")
    assert callbacks.state == "failed"
    broken.fails = False
    callbacks("a cat")
    assert callbacks.state == "finished"


def test_a_callback_that_cancels_is_named(pipe: ToyPipeline) -> None:
    class Discards(Callback):
        def on_step_end(self, step: Step) -> None:
            if step.index == 2:
                raise GenerationCancelled(step.index, step.timestep)

    callbacks = bind(pipe, Discards())
    with pytest.raises(GenerationCancelled):
        callbacks("a cat")
    assert callbacks.report.stopped == ("Discards", 2)
    assert callbacks.report.outcome == "cancelled"


def test_a_function_that_stops_is_named(pipe: ToyPipeline) -> None:
    def enough(pipeline: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        pipeline._interrupt = index == 1
        return tensors

    callbacks = bind(pipe, enough)
    callbacks("a")
    report = callbacks.report
    assert report.stopped is not None
    assert report.stopped.after_step == 1
    assert report.stopped.by.endswith("enough")


def test_stream(pipe: ToyPipeline) -> None:
    """A stream has its run's report, with the previews that nobody took in time."""
    events = stream(pipe, "a", backlog=20)
    assert events.report.outcome == "pending"
    shown = sum(isinstance(event, PreviewFrame) for event in events)
    report = events.report
    assert (report.outcome, shown) == ("finished", 10)
    assert report.callbacks["Preview"] == {"shown": 10, "dropped": 0}
    assert report.callbacks["stream"] == {"dropped": 0}
    hold = Hold(5)
    events = stream(pipe, "a", backlog=1, callbacks=[hold])
    next(events)
    assert hold.there.wait(WAIT)  # five previews were made by now, of which one was taken
    hold.go.set()
    list(events)
    dropped = events.report.callbacks["stream"]["dropped"]
    assert 0 < dropped < 10


def test_a_stream_that_is_left(pipe: ToyPipeline) -> None:
    hold = Hold(3)
    events = stream(pipe, "a", callbacks=[hold])
    next(events)
    assert hold.there.wait(WAIT)
    events.cancel()
    hold.go.set()
    events.close()
    assert events.report.outcome == "cancelled"
    assert events.report.stopped is not None
    assert events.report.stopped.by == "leaving its stream"


def test_a_task_that_is_cancelled(pipe: ToyPipeline) -> None:
    hold = Hold(3)
    callbacks = bind(pipe, hold)

    async def cancelled() -> None:
        task = asyncio.create_task(run_async(pipe, "a", callbacks))
        await asyncio.to_thread(hold.there.wait, WAIT)
        task.cancel()
        asyncio.get_running_loop().call_later(0.2, hold.go.set)
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert callbacks.report.stopped == ("cancelling its task", 3)


def test_previews_that_were_dropped(pipe: ToyPipeline) -> None:
    hold, shown = Hold(8), threading.Event()

    def slow(frame: PreviewFrame) -> None:
        shown.set()
        assert hold.there.wait(WAIT)

    callbacks = bind(pipe, Preview(Background(slow, maxsize=2)), hold)
    thread = InThread(partial(callbacks, "a"))
    assert hold.there.wait(WAIT)
    hold.go.set()
    thread.join()
    counts = callbacks.report.callbacks["Preview"]
    assert counts["shown"] + counts["dropped"] == 10
    assert counts["dropped"] >= 5


def test_a_sink_that_raises(pipe: ToyPipeline) -> None:
    def broken(frame: PreviewFrame) -> None:
        raise OSError("the disk is full")

    callbacks = bind(pipe, Preview(broken))
    with pytest.warns(RuntimeWarning, match="disk is full"):
        callbacks("a")
    report = callbacks.report
    assert report.outcome == "finished"
    assert report.callbacks["Preview"]["shown"] == 0
    assert report.callbacks["Preview"]["dropped"] > 0
    assert [text for text in report.warnings if "the disk is full" in text] == [*report.warnings]
    assert len(report.warnings) == 1


def test_warnings_of_callbacks(pipe: ToyPipeline) -> None:
    class Poison(Callback):
        tensors = ("latents",)

        def on_step_end(self, step: Step) -> None:
            if step.index == 3:
                step["latents"] = step["latents"] / 0.0

    callbacks = bind(pipe, CFGCutoff(cutoff_step_index=99), Poison(), NaNGuard("warn"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        callbacks("a")
    never, not_finite = callbacks.report.warnings
    assert "never cuts" in never
    assert "not finite" in not_finite or "NaN" in not_finite
    assert never in " ".join(str(callbacks.report).split())


def test_a_run_that_fails(pipe: ToyPipeline) -> None:
    class Fails(Callback):
        def on_step_end(self, step: Step) -> None:
            if step.index == 1:
                raise ValueError("no\nsecond line, please")

    callbacks = bind(pipe, Preview([]), Fails())
    with pytest.raises(ValueError, match="no"):
        callbacks("a")
    report = callbacks.report
    assert (report.outcome, report.error, report.steps) == ("failed", "ValueError: no", 1)
    assert "Preview" in report.callbacks


def test_a_call_that_fails_before_its_first_step_has_nothing_of_the_run_before(
    pipe: ToyPipeline,
) -> None:
    callbacks = bind(pipe, Preview([]))
    callbacks("a")
    with pytest.raises(TypeError):
        callbacks("a", nonsense=1)
    report = callbacks.report
    assert (report.outcome, report.steps, report.callbacks) == ("failed", 0, {})


def test_concurrent_runs_have_their_own() -> None:
    """One callback object serves two runs; each report is of one."""
    preview, holds = Preview([]), [Hold(3), Hold(6)]
    bindings = [bind(ToyPipeline(), preview, hold) for hold in holds]
    threads = [InThread(partial(one, "a")) for one in bindings]
    for hold in holds:
        assert hold.there.wait(WAIT)
    first, second = (one.report for one in bindings)
    for hold in holds:
        hold.go.set()
    for thread in threads:
        thread.join()
    assert (first.steps, second.steps) == (3, 6)
    for one in bindings:
        assert one.report.callbacks["Preview"] == {"shown": 10, "dropped": 0}


def test_what_a_callback_of_ones_own_says(pipe: ToyPipeline) -> None:
    class Counts(Callback):
        def on_step_end(self, step: Step) -> None:
            step.run.state(self, list).append(step.index)

        def on_report(self, run: Run) -> dict[str, int]:
            return {"seen": len(run.kept(self) or ())}

    callbacks = bind(pipe, Counts(), Counts())
    callbacks("a")
    assert callbacks.report.callbacks == {"Counts": {"seen": 10}, "Counts 2": {"seen": 10}}


def test_what_the_report_keeps(pipe: ToyPipeline) -> None:
    """Numbers and words: not the run, whose callbacks may keep tensors."""
    runs: list[Any] = []

    class Sees(Callback):
        def on_step_end(self, step: Step) -> None:
            if not runs:
                runs.append(weakref.ref(step.run))

        def on_report(self, run: Run) -> dict[str, int]:
            return {"runs": len(runs)}

    callbacks = bind(pipe, Sees())
    callbacks("a")
    report = callbacks.report
    gc.collect()
    assert runs[0]() is None
    assert report.callbacks == callbacks.report.callbacks == {"Sees": {"runs": 1}}


def test_a_dict_and_a_screen(pipe: ToyPipeline) -> None:
    callbacks = bind(pipe, CFGCutoff(0.4), Preview([]), Interrupt(7))
    callbacks("a", num_inference_steps=20)
    report = callbacks.report
    again = json.loads(json.dumps(report.as_dict()))
    assert again["stopped"] == {"by": "Interrupt", "after_step": 7}
    assert again["cuts"] == []
    assert again["callbacks"]["Preview"]["shown"] == 8
    assert again["seconds_per_step"] == report.seconds_per_step
    assert set(again) > {*Report.__dataclass_fields__}
    lines = str(report).splitlines()
    assert len(lines) < 24
    assert max(map(len, lines)) <= 100
    assert repr(report) == "<Report of ToyPipeline: interrupted, 8 of 20 steps>"
    html = report._repr_html_()
    assert "<table>" in html
    assert "interrupted, 8 of 20 steps" in html


def test_html_is_escaped(pipe: ToyPipeline) -> None:
    class Says(Callback):
        def on_step_end(self, step: Step) -> None:
            pass

        def on_report(self, run: Run) -> dict[str, str]:
            return {"said": "<script>"}

    callbacks = bind(pipe, Says())
    callbacks("a")
    assert "<script>" not in callbacks.report._repr_html_()
    assert "&lt;script&gt;" in callbacks.report._repr_html_()
