"""Several ranks decide as one: threads in the place of processes, on the toy pipeline."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rank_threads import ThreadGroup, on_each, threads_as_ranks

from unicb import (
    Callback,
    CFGCutoff,
    GenerationCancelled,
    Interrupt,
    NaNGuard,
    PipelineBusyError,
    Preview,
    Progress,
    RankError,
    Step,
    StepTimer,
    Trajectory,
    UnsupportedPipelineError,
    bind,
)
from unicb.run.busy import User
from unicb.run.sharing import denoisers_of
from unicb.run.sources import TENSOR_INPUTS
from unicb.sinks import Animation, ContactSheet
from unicb_numpy.backend import NumpyBackend
from unicb_numpy.pipelines import ToyPipeline

__all__ = ["threads_as_ranks"]

pytestmark = pytest.mark.usefixtures("threads_as_ranks")
STEPS = 6


class Do(Callback):
    """Does something at one step's end, on one rank."""

    tensors = ("latents",)

    def __init__(self, do: Callable[[Step], Any], at: int, rank: int, own: int) -> None:
        self.do, self.at, self.is_mine = do, at, rank == own
        self.seen: list[int] = []
        self.outcome: str | None = None

    def on_step_end(self, step: Step) -> None:
        self.seen.append(step.index)
        if self.is_mine and step.index == self.at:
            self.do(step)

    def on_run_end(self, run: Any) -> None:
        self.outcome = run.outcome


def fail(step: Step) -> None:
    raise ValueError("boom")


class NoFlag(ToyPipeline):
    """Its loop reads no flag: it is made to run out."""

    @property
    def interrupt(self) -> bool:
        return False


def plain(*callbacks: Any, **kwargs: Any) -> Any:
    return bind(ToyPipeline(), *callbacks)("x", STEPS, output_type="latent", **kwargs)


def latents_after(step: int) -> Any:
    return plain(Interrupt(step, picture="latents"))


def same(found: Any, expected: Any) -> bool:
    return isinstance(found, np.ndarray) and np.array_equal(found, expected)


@pytest.mark.parametrize("agree", ["later", "now"])
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("at", [0, 3, STEPS - 2, STEPS - 1])
def test_interrupt_of_one_rank_is_one_of_all(agree: Any, rank: int, at: int) -> None:
    def work(own: int, group: Any) -> Any:
        do = Do(lambda step: step.interrupt(picture="latents"), at, rank, own)
        callbacks = bind(ToyPipeline(), do, group=group, agree=agree)
        found = callbacks("x", STEPS, output_type="latent")
        return found, do.seen, callbacks.state

    ends = min(at + (agree == "later"), STEPS - 1)
    for found, seen, state in on_each(ThreadGroup(2), work):
        assert same(found, latents_after(ends))
        assert seen == list(range(ends + 1))
        assert state == "interrupted"


@pytest.mark.parametrize("agree", ["later", "now"])
def test_what_all_say_takes_effect_at_once(agree: Any) -> None:
    def work(own: int, group: Any) -> Any:
        return bind(ToyPipeline(), Interrupt(2, picture="latents"), group=group, agree=agree)(
            "x", STEPS, output_type="latent"
        )

    for found in on_each(ThreadGroup(3), work):
        assert same(found, latents_after(2))


@pytest.mark.parametrize("kind", [ToyPipeline, NoFlag])
@pytest.mark.parametrize("order", [1, 2])
def test_interrupted_picture_is_the_same_on_all(kind: Any, order: int) -> None:
    def work(own: int, group: Any) -> Any:
        callbacks = bind(kind(order), Do(Step.interrupt, 2, 1, own), group=group)
        return callbacks("x", STEPS, output_type="latent")

    expected = bind(kind(order), Interrupt(3))("x", STEPS, output_type="latent")
    for found in on_each(ThreadGroup(2), work):
        assert same(found, expected)


@pytest.mark.parametrize("agree", ["later", "now"])
@pytest.mark.parametrize("at", [0, 3, STEPS - 2, STEPS - 1])
def test_error_of_one_rank_is_told_on_the_others(agree: Any, at: int) -> None:
    def work(own: int, group: Any) -> Any:
        do = Do(fail, at, 1, own)
        try:
            return bind(ToyPipeline(), do, group=group, agree=agree)("x", STEPS)
        except Exception as error:
            return error, do.seen, do.outcome

    first, second = on_each(ThreadGroup(2, first=4), work)
    ends = min(at + (agree == "later"), STEPS - 1)
    assert isinstance(first[0], RankError)
    assert f"a callback of rank 5 failed in step {at}: Do: ValueError: boom" in str(first[0])
    assert isinstance(second[0], ValueError)
    # Whoever has failed is not called again.
    assert (first[1], second[1]) == ([*range(ends + 1)], [*range(at + 1)])
    assert first[2] == second[2] == "failed"


def test_other_callbacks_are_called_after_one_has_failed() -> None:
    # They may have to act on every rank, such as a decoder that communicates, or a cut.
    def work(own: int, group: Any) -> Any:
        after = Do(lambda step: None, 0, 0, own)
        with pytest.raises((ValueError, RankError)):
            bind(ToyPipeline(), Do(fail, 2, 0, own), after, group=group)("x", STEPS)
        return after.seen

    assert on_each(ThreadGroup(2), work) == [[0, 1, 2, 3]] * 2


@pytest.mark.parametrize(
    ("words", "raised"),
    [
        (("interrupt", "cancel"), GenerationCancelled),
        (("cancel", "interrupt"), GenerationCancelled),
        (("interrupt", "fail"), (RankError, ValueError)),
        (("fail", "cancel"), (RankError, ValueError)),
        (("none", "cancel"), GenerationCancelled),
    ],
)
@pytest.mark.parametrize("lag", [0, 1])
def test_highest_word_wins(words: tuple[str, str], raised: Any, lag: int) -> None:
    def work(own: int, group: Any) -> Any:
        says = {
            "none": lambda step: None,
            "interrupt": Step.interrupt,
            "cancel": lambda step: callbacks.cancel(now=True),
            "fail": fail,
        }[words[own]]
        callbacks = bind(ToyPipeline(), Do(says, 2 + own * lag, own, own), group=group)
        with pytest.raises(raised) as caught:
            callbacks("x", STEPS)
        return caught.type, getattr(caught.value, "step", None)

    found = on_each(ThreadGroup(2), work)
    if raised is GenerationCancelled:
        assert len({*found}) == 1  # at the same step
    else:
        assert {kind for kind, _ in found} == {RankError, ValueError}


def test_requests_before_the_run() -> None:
    def work(own: int, group: Any) -> Any:
        callbacks = bind(ToyPipeline(), group=group)
        if own == 0:
            callbacks.interrupt(picture="latents")
        first = callbacks("x", STEPS, output_type="latent")
        callbacks = bind(ToyPipeline(), group=group)
        if own == 1:
            callbacks.cancel()
        with pytest.raises(GenerationCancelled):
            callbacks("x", STEPS)
        return first, callbacks("x", STEPS, output_type="latent"), callbacks.state

    for first, last, state in on_each(ThreadGroup(2), work):
        assert same(first, latents_after(1))
        assert same(last, plain())
        assert state == "finished"


class Early(Callback):
    def __init__(self, fails: bool) -> None:
        self.fails = fails

    def before_first_step(self, step: Step) -> None:
        if self.fails:
            raise ValueError("early")

    def on_step_end(self, step: Step) -> None: ...


def test_error_before_the_first_step() -> None:
    def work(own: int, group: Any) -> Any:
        pipeline = ToyPipeline()
        calls: list[int] = []
        forward = pipeline.unet.forward
        pipeline.unet.forward = lambda *a, **k: calls.append(1) or forward(*a, **k)
        with pytest.raises((ValueError, RankError)) as caught:
            bind(pipeline, Early(own == 1), group=group)("x", STEPS)
        return str(caught.value), len(calls)

    found = on_each(ThreadGroup(2), work)
    said = "a callback of rank 1 failed before the first step: Early: ValueError: early"
    assert found == [(said, 0), ("early", 0)]  # no denoiser waits for another's


def test_error_before_the_loop() -> None:
    class Broken(ToyPipeline):
        def encode_prompt(self, prompts: Any) -> Any:
            raise OSError("no text encoder")

    def work(own: int, group: Any) -> Any:
        pipeline = Broken() if own == 0 else ToyPipeline()
        type(pipeline).__name__ = "ToyPipeline"
        with pytest.raises((OSError, RankError)) as caught:
            bind(pipeline, group=group)("x", STEPS)
        return str(caught.value)

    found = on_each(ThreadGroup(2), work)
    assert "rank 0 failed before the run's first step: OSError: no text encoder" in found[1]


@pytest.mark.parametrize("how", ["unpacked", "busy"])
def test_call_that_failed_on_one_rank_unheard(how: str) -> None:
    """The next request there is not taken for the one that the others are still at."""

    def work(own: int, group: Any) -> Any:
        pipeline = ToyPipeline()
        callbacks = bind(pipeline, group=group)
        if own == 0 and how == "unpacked":
            with pytest.raises(ValueError, match="not offered"):
                pipeline("A", **{**callbacks, TENSOR_INPUTS: ["nothing"]})
        elif own == 0:
            lease = bind(pipeline, group=None)._lease(User())
            with pytest.raises(PipelineBusyError):
                callbacks("A", STEPS)
            lease.release()
        with pytest.raises(RankError, match="different steps"):
            callbacks("B" if own == 0 else "A", STEPS)
        return callbacks("C", STEPS, output_type="latent")

    found = on_each(ThreadGroup(2), work)
    expected = ToyPipeline()("C", STEPS, output_type="latent")
    assert all(same(each, expected) for each in found)


def test_error_in_the_middle_of_a_step() -> None:
    def work(own: int, group: Any) -> Any:
        pipeline = ToyPipeline()
        step, calls = pipeline.scheduler.step, []

        def fails(*args: Any) -> Any:
            calls.append(1)
            if own == 0 and len(calls) == 3:
                raise OSError("out of memory")
            return step(*args)

        pipeline.scheduler.step = fails
        callbacks = bind(pipeline, group=group)
        with pytest.raises((OSError, RankError)) as caught:
            callbacks("x", STEPS)
        pipeline.scheduler.step = step
        return str(caught.value), callbacks("x", STEPS, output_type="latent")

    found = on_each(ThreadGroup(2), work)
    assert "rank 0 left the run after step 1: OSError: out of memory" in found[1][0]
    assert all(same(again, plain()) for _, again in found)


def test_error_at_the_runs_end() -> None:
    class EndsBadly(Do):
        def on_run_end(self, run: Any) -> None:
            if self.is_mine:
                raise OSError("disk full")

    def work(own: int, group: Any) -> Any:
        callbacks = bind(ToyPipeline(), EndsBadly(lambda step: None, 0, 0, own), group=group)
        with pytest.raises((OSError, RankError)) as caught:
            callbacks("x", STEPS)
        return str(caught.value)

    found = on_each(ThreadGroup(2), work)
    assert found[0] == "disk full"
    assert "rank 0 failed at the run's end: OSError: disk full" in found[1]


def test_requests_that_are_one_apart_are_not_mixed() -> None:
    """As after a call that failed on one rank unheard, where each goes on with its next one."""

    def work(own: int, group: Any) -> list[Any]:
        pipeline = ToyPipeline()
        callbacks = bind(pipeline, group=group)
        if own == 0:
            with pytest.raises(ValueError, match="not offered"):
                pipeline("A", **{**callbacks, TENSOR_INPUTS: ["nothing"]})
        said = []
        for prompt in "BCD" if own == 0 else "ABC":
            with pytest.raises(RankError) as caught:
                callbacks(prompt, STEPS)
            said.append(str(caught.value))
        return [said, callbacks("E", STEPS, output_type="latent")]

    expected = ToyPipeline()("E", STEPS, output_type="latent")
    for said, latents in on_each(ThreadGroup(2), work):
        assert "different steps" in said[0]
        assert all("with different prompts or sizes" in each for each in said[1:])
        assert same(latents, expected)


@pytest.mark.parametrize(
    ("call", "other"),
    [
        ({}, {"prompt": ["x", "y"]}),
        ({}, {"prompt": "y"}),
        ({}, {"num_images_per_prompt": 2}),
    ],
)
def test_what_is_to_be_made_has_to_be_the_same(call: Any, other: Any) -> None:
    def work(own: int, group: Any) -> Any:
        asked = {"prompt": "x", **(call if own else other)}
        return bind(ToyPipeline(), group=group)(num_inference_steps=STEPS, **asked)

    for found in on_each(ThreadGroup(2), work):
        assert isinstance(found, RankError)
        assert "ranks 0 and 1 share a run, and were called with different" in str(found)


def test_ranks_at_different_steps() -> None:
    def work(own: int, group: Any) -> Any:
        return bind(ToyPipeline(), group=group, timeout=WAIT)("x", STEPS + own)

    for found in on_each(ThreadGroup(2), work):
        assert isinstance(found, RankError)
        assert "rank 0 is before the first of 6 steps" in str(found)
        assert "rank 1 is before the first of 7 steps" in str(found)


WAIT = 10.0


@pytest.mark.parametrize(
    "others", [lambda: [CFGCutoff(0.5)], lambda: [], lambda: [CFGCutoff(0.4), NaNGuard()]]
)
def test_different_callbacks(others: Any) -> None:
    def work(own: int, group: Any) -> Any:
        return bind(ToyPipeline(), *([CFGCutoff(0.4)] if own else others()), group=group)("x", 4)

    for found in on_each(ThreadGroup(2), work):
        assert isinstance(found, RankError)
        assert "rank 1: ToyPipeline with CFGCutoff" in str(found)


def test_different_ways_to_agree() -> None:
    def work(own: int, group: Any) -> Any:
        return bind(ToyPipeline(), group=group, agree="now" if own else "later")("x", 4)

    assert all(isinstance(found, RankError) for found in on_each(ThreadGroup(2), work))


def test_same_callbacks_are_the_same(tmp_path: Any) -> None:
    def work(own: int, group: Any) -> Any:
        callbacks = [
            CFGCutoff(0.4),
            Interrupt(3, when=lambda step: False),
            NaNGuard("stop"),
            Preview(str(tmp_path / f"{own}" / "{step}.png")),
            lambda pipeline, index, timestep, tensors: tensors,
        ]
        return bind(ToyPipeline(), *callbacks, group=group)("x", 4)

    found = on_each(ThreadGroup(2), work)
    assert np.array_equal(*found)
    assert [path.name for path in tmp_path.iterdir()] == ["0"]  # the first rank's


def test_what_a_callback_has_measured_may_differ() -> None:
    def work(own: int, group: Any) -> Any:
        timer, pipeline = StepTimer(), ToyPipeline()
        if own == 0:
            bind(pipeline, timer)("x", 3)
        return bind(pipeline, timer, group=group)("x", 4)

    assert np.array_equal(*on_each(ThreadGroup(2), work))


def test_binding_used_on_one_rank_only() -> None:
    def work(own: int, group: Any) -> Any:
        return bind(ToyPipeline(), group=group, timeout=0.2)("x", 4) if own == 0 else None

    assert isinstance(on_each(ThreadGroup(2), work)[0], RankError)


@pytest.mark.parametrize("agree", ["later", "now"])
def test_rank_that_hangs(agree: Any) -> None:
    released = threading.Event()

    def work(own: int, group: Any) -> Any:
        do = Do(lambda step: released.wait(WAIT), 2, 1, own)
        try:
            return bind(ToyPipeline(), do, group=group, timeout=0.3, agree=agree)("x", STEPS)
        except RankError:
            released.set()
            raise

    assert all(isinstance(found, RankError) for found in on_each(ThreadGroup(2), work))


def test_group_lost_in_mid_run() -> None:
    group = ThreadGroup(2)

    def work(own: int, member: Any) -> Any:
        do = Do(lambda step: setattr(group, "lost", True), 2, 0, own)
        return bind(ToyPipeline(), do, group=member, timeout=0.3)("x", STEPS)

    assert all(isinstance(found, RankError) for found in on_each(group, work))


def test_first_late_clock_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(own: int, group: Any) -> Any:
        # This rank's clock is far ahead.
        late = Interrupt(deadline=1000.0, picture="latents")
        late._is_late = lambda step, deadline: own == 1 and step.index >= 3
        callbacks = bind(ToyPipeline(), late, group=group)
        return callbacks("x", STEPS, output_type="latent"), callbacks.state

    for found, state in on_each(ThreadGroup(2), work):
        assert same(found, latents_after(4))
        assert state == "interrupted"


def test_deadline_leaves_room_for_one_more_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of one second, on a clock of the test's: with others to ask, the stop is asked for a
    step earlier, and both stop at the same step."""
    clocks = threading.local()

    class Second(Callback):
        def on_step_end(self, step: Step) -> None:
            clocks.now += 1.0

    def last_step(group: Any) -> int:
        clocks.now = 0.0
        callbacks = bind(ToyPipeline(), Second(), Interrupt(deadline=4.5), group=group)
        callbacks("x", 10)
        assert callbacks.state == "interrupted"
        return int(callbacks.step or 0)

    monkeypatch.setattr(time, "monotonic", lambda: getattr(clocks, "now", 0.0))
    alone = last_step(None)
    assert on_each(ThreadGroup(2), lambda own, group: last_step(group)) == [alone - 1, alone - 1]


def test_stop_that_goes_back_shows_what_it_went_back_to() -> None:
    def spoil(step: Step) -> None:
        step["latents"] = step["latents"] * float("nan")

    def work(own: int, group: Any) -> Any:
        callbacks = bind(ToyPipeline(), Do(spoil, 3, 0, own), NaNGuard("stop"), group=group)
        if own == 0:
            with pytest.warns(RuntimeWarning, match="went back to the latents of step 2"):
                return callbacks("x", STEPS, output_type="latent")
        return callbacks("x", STEPS, output_type="latent")

    found = on_each(ThreadGroup(2), work)
    assert same(found[0], latents_after(2))
    assert np.isfinite(found[1]).all()


def test_many_requests_in_a_row() -> None:
    group = ThreadGroup(2)

    def work(own: int, member: Any) -> Any:
        random = np.random.default_rng(5)  # the same on each rank
        pipeline, found = ToyPipeline(), []
        bindings: list[Any] = []

        def cancel(step: Step) -> None:
            bindings[-1].cancel()

        for _ in range(60):
            kind, at, rank = random.integers(4), int(random.integers(STEPS)), random.integers(2)
            do = [lambda step: None, Step.interrupt, fail, cancel][kind]
            bindings.append(bind(pipeline, Do(do, at, rank, own), group=member))
            try:
                found.append(bindings[-1]("x", STEPS, output_type="latent").tobytes())
            except Exception as error:
                found.append(type(error).__name__)
        return found

    first, second = on_each(group, work)
    pairs = {*zip(first, second, strict=True)}
    for one, other in pairs:
        assert one == other or {one, other} == {"ValueError", "RankError"}
    assert group.rounds[0] == group.rounds[1]  # nothing is left for the next request


def test_asks_after_the_last_vote_are_too_late() -> None:
    def work(own: int, group: Any) -> Any:
        callbacks = bind(ToyPipeline(), group=group)
        asked: list[bool] = []
        agree = callbacks._bound.target.backend.agree

        def asking(word: Any, step: int, member: Any) -> Any:
            if step == STEPS - 1:
                asked.append(callbacks.interrupt())
            return agree(word, step, member)

        sharing = callbacks._bound.sharing
        vars(sharing)["backend"] = type("Asking", (), {"agree": staticmethod(asking)})
        callbacks("x", STEPS)
        return asked, callbacks.state

    for asked, state in on_each(ThreadGroup(2), work):
        assert asked == [False, False]
        assert state == "finished"


def test_none_of_it_without_a_group() -> None:
    for kwargs in ({}, {"group": None}, {"group": "auto"}):
        callbacks = bind(ToyPipeline(), **kwargs)
        assert callbacks._bound.sharing is None
        callbacks("x", 2)


@pytest.mark.parametrize("wrong", [{"agree": "soon"}, {"timeout": 0}, {"timeout": "x"}])
def test_wrong_arguments(wrong: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=next(iter(wrong))):
        bind(ToyPipeline(), **wrong)


def test_group_of_a_backend_that_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with pytest.raises(Exception, match="knows no groups of ranks"):
        bind(ToyPipeline(), group="workers")


def test_rows_of_the_star_form() -> None:
    def work(own: int, group: Any) -> Any:
        pipeline = ToyPipeline()
        callbacks = bind(pipeline, Do(fail, 2, 0, own), group=group)
        with pytest.raises((RankError, ValueError)):
            pipeline("x", STEPS, **callbacks)
        clean = bind(pipeline, Do(Step.interrupt, 3, 1, own), group=group)
        return pipeline("x", STEPS, output_type="latent", **clean)

    expected = bind(ToyPipeline(), Interrupt(4))("x", STEPS, output_type="latent")
    for found in on_each(ThreadGroup(2), work):
        assert same(found, expected)


# Sinks.


def test_first_rank_shows_and_writes(tmp_path: Path) -> None:
    frames: list[Any] = [[], []]
    states: list[Any] = [[], []]

    def work(own: int, group: Any) -> Any:
        return bind(
            ToyPipeline(),
            Preview(str(tmp_path / "one-{step}.png")),
            Preview(str(tmp_path / "each-{rank}-{step}.png")),
            Preview(frames[own]),
            Preview(ContactSheet(tmp_path / "sheet-{rank}.png")),
            Preview(Animation(tmp_path / "run.gif")),
            Trajectory(tmp_path / "run.npz"),
            Trajectory(tmp_path / "run-{rank}.npz"),
            Progress(states[own].append),
            group=group,
        )("x", 2, output_type="latent")

    def rank(self: NumpyBackend) -> tuple[int, int]:
        return int(threading.current_thread().name[-1]), 2

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NumpyBackend, "rank", rank)
        on_each(ThreadGroup(2), work)
    expected = [f"each-{rank}-{step}.png" for rank in range(2) for step in range(2)]
    expected += ["one-0.png", "one-1.png", "run.gif", "run.npz"]
    expected += [f"run-{rank}.npz" for rank in range(2)]
    expected += [f"sheet-{rank}.png" for rank in range(2)]
    assert {path.name for path in tmp_path.iterdir()} == {*expected}
    assert [len(found) for found in frames] == [2, 0]
    assert [len(found) for found in states] == [2, 0]


@pytest.mark.parametrize("fails", [False, True])
def test_decoder_is_called_on_every_rank(fails: bool) -> None:
    calls: list[list[int]] = [[], []]

    def work(own: int, group: Any) -> Any:
        def decode(latents: Any) -> Any:
            calls[own].append(1)
            return np.zeros((len(latents.data), 8, 8, 3), dtype=np.uint8)

        def show(frame: Any) -> None:
            if fails and own == 0:
                raise OSError("disk full")

        return bind(ToyPipeline(), Preview(show, decoder=decode), group=group)("x", 4)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        on_each(ThreadGroup(2), work)
    assert calls == [[1] * 4] * 2


def test_decoder_with_a_clock_of_each_rank_is_refused() -> None:
    def decode(latents: Any) -> Any:
        return latents

    for found in on_each(
        ThreadGroup(2),
        lambda own, group: bind(ToyPipeline(), Preview([], decoder=decode, max_fps=1), group=group),
    ):
        assert isinstance(found, UnsupportedPipelineError)
        assert "clock of each" in str(found)


def test_two_ranks_with_runs_of_their_own_write_no_common_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claimed: dict[str, int] = {}
    own = 0
    monkeypatch.setattr(NumpyBackend, "rank", lambda self: (own, 2))
    monkeypatch.setattr(NumpyBackend, "claim", lambda self, name: claimed.setdefault(name, own))

    def run(name: str) -> Any:
        callbacks = Preview(str(tmp_path / f"{name}.png")), Trajectory(tmp_path / "{run}.npz")
        return bind(ToyPipeline(), *callbacks)("x", 2, output_type="latent")

    run("{step}")
    written = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    own = 1
    with pytest.warns(RuntimeWarning) as caught:
        refused = run("{step}")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="previews")
        assert same(run("{rank}-{step}"), refused)
    said = [str(warning.message) for warning in caught]
    assert any("previews are off for this run" in each and "rank 0 writes" in each for each in said)
    assert any("the trajectory of this run is not written" in each for each in said)
    assert all(path.stat().st_mtime_ns == at for path, at in written.items())
    assert {path.name for path in tmp_path.iterdir()} - {path.name for path in written} == {
        "1-0.png",
        "1-1.png",
    }


def test_pipeline_whose_components_cannot_be_listed() -> None:
    """As diffusers and mindone raise for a class whose call and configuration do not agree."""

    class Odd(ToyPipeline):
        @property
        def components(self) -> dict[str, Any]:
            raise ValueError("Expected [] to be defined, but ['kind'] are defined")

    pipe = Odd()
    unknown: Any = SimpleNamespace(models=[], pipeline=pipe)
    assert denoisers_of(unknown) == [pipe.unet]
