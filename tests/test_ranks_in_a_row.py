"""Nothing of one run reaches the next, whichever ranks fail in it, and wherever."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from rank_threads import ThreadGroup, on_each, threads_as_ranks

from unicb import Callback, GenerationCancelled, RankError, Step, UnsupportedPipelineError, bind
from unicb.backend import Ranks
from unicb.run.agreement import Agreement, Own
from unicb.run.sharing import Sharing
from unicb.run.votes import Phase, Vote, Word
from unicb_numpy.pipelines import ToyPipeline

__all__ = ["threads_as_ranks"]

pytestmark = pytest.mark.usefixtures("threads_as_ranks")
STEPS = 5
#: Places where a rank fails: before the loop, in the middle of a step, or nowhere.
EARLY, NOWHERE = -1, None


class Fails(ToyPipeline):
    """A pipeline that fails at ``at``, one of the above or a step's index."""

    at: int | None = NOWHERE

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.step, self.scheduler.step = self.scheduler.step, self.counted

    def encode_prompt(self, prompts: Any) -> Any:
        self.calls = 0
        if self.at == EARLY:
            raise OSError("no text encoder")
        return super().encode_prompt(prompts)

    def counted(self, *args: Any) -> Any:
        self.calls += 1
        if self.at == self.calls - 1:
            raise OSError("out of memory")
        return self.step(*args)


class StopAt(Callback):
    def __init__(self, at: int) -> None:
        self.at = at

    def on_step_end(self, step: Step) -> None:
        if step.index == self.at:
            step.interrupt()


def requests(
    size: int, plan: Sequence[Sequence[int | None]], **kwargs: Any
) -> list[list[tuple[str, int | None]]]:
    """What each rank finds of requests made one after the other; ``plan`` has, for each of them,
    where each rank fails. The request of number n is to be interrupted by the first rank alone, at
    a step that goes by n: so requests that are taken for one another end elsewhere."""

    def work(own: int, group: Any) -> Any:
        pipeline, found = Fails(), []
        for number, places in enumerate(plan):
            pipeline.at = places[own]
            stop = StopAt(number % 3 if own == 0 else STEPS)
            vars(stop)["_of_one_rank"] = ("at",)
            callbacks = bind(pipeline, stop, group=group, timeout=5.0, **kwargs)
            try:
                callbacks("x", STEPS)
            except (OSError, RankError) as error:
                found.append((type(error).__name__, None))
            else:
                found.append((callbacks.state, callbacks.step))
        return found

    found = on_each(ThreadGroup(size), work)
    for each in found:
        assert isinstance(each, list), each
    return found


def check(
    plan: Sequence[Sequence[int | None]], found: list[list[tuple[str, int | None]]], later: int
) -> None:
    """Whoever fails raises that; the others are told; and where nobody fails, all end alike."""
    for number, places in enumerate(plan):
        last = number % 3 + later
        ends = {each[number] for each in found}
        if any(at is not NOWHERE and at <= last for at in places):
            assert ends <= {("OSError", None), ("RankError", None)}, (number, found)
        else:
            assert ends == {("interrupted", last)}, (number, found)


FINE = (NOWHERE, NOWHERE)


@pytest.mark.parametrize("agree", ["later", "now"])
@pytest.mark.parametrize(
    "plan",
    [
        [(1, 2), FINE, FINE],
        [(2, 1), FINE, FINE],
        [(1, 1), FINE],
        [(1, 2), (EARLY, NOWHERE), FINE, FINE],
        [(1, 2), (NOWHERE, EARLY), FINE, FINE],
        [(1, 2), (EARLY, EARLY), FINE, (2, 1), (EARLY, 0), FINE, FINE],
    ],
)
def test_ranks_that_fail_in_one_step_meet_in_the_next_run(agree: Any, plan: Any) -> None:
    plan = [FINE, FINE, *plan]  # so that the first of them has steps enough
    check(plan, requests(2, plan, agree=agree), agree == "later")


@pytest.mark.parametrize("are_models_known", [True, False])
@pytest.mark.parametrize("size", [2, 3])
def test_ranks_that_fail_anywhere_meet_in_the_next_run(
    size: int, are_models_known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not are_models_known:

        def unknown(*about: Any) -> Any:
            raise UnsupportedPipelineError("not known")

        monkeypatch.setattr("unicb.run.waiting.models_to_watch", unknown)
    random = np.random.default_rng(3)
    places = [EARLY, 0, 1, 2, 3, NOWHERE, NOWHERE, NOWHERE, NOWHERE]
    plan = [[places[random.integers(len(places))] for _ in range(size)] for _ in range(60)]
    plan += [[NOWHERE] * size] * 3
    check(plan, requests(size, plan), 1)


class Twice(ToyPipeline):
    """A call with two loops, where something fails after one of them."""

    fails_after: int | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        for loop in range(2):
            found = super().__call__(*args, **kwargs)
            if loop == self.fails_after:
                raise OSError("out of memory")
        return found


@pytest.mark.parametrize("fails_after", [0, 1])
def test_error_after_a_loop_that_has_ended_well(fails_after: int) -> None:
    def work(own: int, group: Any) -> Any:
        pipeline, found = Twice(), []
        for number in range(4):
            pipeline.fails_after = fails_after if number == 1 and own == 0 else None
            stop = StopAt(number % 3 if own == 0 else STEPS)
            vars(stop)["_of_one_rank"] = ("at",)
            callbacks = bind(pipeline, stop, group=group, timeout=5.0)
            try:
                callbacks("x", STEPS)
            except (OSError, RankError) as error:
                found.append(str(error))
            else:
                found.append((callbacks.state, callbacks.step))
        return found

    first, second = on_each(ThreadGroup(2), work)
    ends = [("interrupted", number % 3 + 1) for number in range(4)]
    assert first == [ends[0], "out of memory", *ends[2:]]
    told = "rank 0 failed after a run that ended well: OSError: out of memory"
    # Behind the last loop there is nothing more that the others take part in.
    assert second == [ends[0], told if fails_after == 0 else ends[1], *ends[2:]]


def test_ctrl_c_while_a_rank_waits_is_told_to_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(own: int, group: Any) -> Any:
        callbacks = bind(ToyPipeline(), group=group, timeout=5.0)
        agree, rounds = group.group.agree, []

        def agrees(word: Any, step: int) -> Any:
            heard = agree(word, step)
            rounds.append(step)

            def interrupted(seconds: float) -> Any:
                found = heard(seconds)
                if own == 0 and len(rounds) == 3:
                    raise KeyboardInterrupt
                return found

            return interrupted

        group.group.agree = agrees
        with pytest.raises((KeyboardInterrupt, RankError)) as caught:
            callbacks("x", STEPS)
        callbacks("x", STEPS)
        return repr(caught.value), callbacks.state

    first, second = on_each(ThreadGroup(2), work)
    assert first == ("KeyboardInterrupt()", "finished")
    assert "rank 0 left the run after step 2: KeyboardInterrupt" in second[0]
    assert second[1] == "finished"


# A cancel while the ranks agree.


def in_round(callbacks: Any, at: int, ask: Callable[[], Any]) -> list[int]:
    """Have ``ask`` called as this rank's word of this step is sent, each time that it says one.
    Returns the steps whose words were sent."""
    sharing, steps = callbacks._bound.sharing, []
    agree = sharing.backend.agree

    def asking(word: Any, step: int, group: Any) -> Any:
        if Vote.unpacked(word).place.phase is Phase.STEP:
            steps.append(step)
            if step == at:
                ask()
        return agree(word, step, group)

    vars(sharing)["backend"] = type("Asking", (), {"agree": staticmethod(asking)})
    return steps


@pytest.mark.parametrize(("agree", "stops"), [("now", (1,)), ("now", (0, 1)), ("later", (0, 1))])
@pytest.mark.parametrize("is_late", [False, True])
def test_cancel_while_the_ranks_agree_to_interrupt(
    agree: Any, stops: tuple[int, ...], is_late: bool
) -> None:
    """It takes effect, or says that it came too late."""

    def work(own: int, group: Any) -> Any:
        stop = StopAt(2 if own in stops else STEPS)
        vars(stop)["_of_one_rank"] = ("at",)
        callbacks = bind(ToyPipeline(), stop, group=group, agree=agree)
        asked: list[bool] = []

        def ask() -> None:
            if own == 0 and steps.count(2) == 1 + is_late:
                asked.append(callbacks.cancel())

        steps = in_round(callbacks, 2, ask)
        try:
            callbacks("x", STEPS)
        except GenerationCancelled as error:
            return asked, callbacks.state, error.step
        return asked, callbacks.state, callbacks.step

    found = on_each(ThreadGroup(2), work)
    state = "interrupted" if is_late else "cancelled"
    assert found == [([not is_late], state, 2), ([], state, 2)]


def test_cancel_in_a_round_that_ends_nothing_is_heard_in_the_next() -> None:
    def work(own: int, group: Any) -> Any:
        callbacks = bind(ToyPipeline(), group=group, agree="now")
        asked: list[bool] = []
        in_round(callbacks, 1, lambda: asked.append(callbacks.cancel()) if own == 0 else None)
        with pytest.raises(GenerationCancelled) as caught:
            callbacks("x", STEPS)
        return asked, caught.value.step

    assert on_each(ThreadGroup(2), work) == [([True], 2), ([], 2)]


# What is said, on a line that a test has written.


class Scripted:
    """Stands for a backend, and for the other rank, which says ``replies`` in this order.

    Attributes:
        log: what this rank has sent, and what it has waited for, by number.
    """

    def __init__(self, *replies: Any) -> None:
        self.replies, self.log, self.sent = list(replies), [], []

    def agree(self, word: Any, step: int, group: Any) -> Callable[[float], Any]:
        number = len(self.sent)
        self.sent.append(Vote.unpacked(word))

        def heard(seconds: float) -> Any:
            self.log.append(number)
            reply = self.replies[number]
            if isinstance(reply, Exception):
                raise reply
            return [word, reply(self.sent[number]).packed()]

        return heard

    def sharing(self) -> Sharing:
        ranks = Ranks((0, 1), 0, None)
        return Sharing(self, ranks, "later", 1.0, "nothing", "nothing")  # type: ignore[arg-type]


def same(vote: Vote) -> Vote:
    return vote


def of_run(run: int, leaves: bool = False) -> Callable[[Vote], Vote]:
    """The other rank is in this run."""

    def said(vote: Vote) -> Vote:
        word = Word.FAILED if leaves else Word.NONE
        return replace(vote, word=word, place=replace(vote.place, run=run), leaves=leaves)

    return said


def test_who_leaves_waits_for_nobody_until_the_next_run() -> None:
    line = Scripted(same, same)
    sharing = line.sharing()
    Agreement(sharing).leave(Word.FAILED, "boom", -1)
    assert line.log == []
    assert Agreement(sharing).before_first_step(Own(), 3) is None
    assert line.log == [0, 1]
    assert [vote.place.run for vote in line.sent] == [0, 1]
    assert sharing.ranks.left is None


def test_what_a_rank_said_too_early_is_said_again() -> None:
    line = Scripted(same, of_run(0, leaves=True), same, same)
    sharing = line.sharing()
    sharing.ranks.begin_run()
    Agreement(sharing).leave(Word.FAILED, "first", -1)
    Agreement(sharing).leave(Word.FAILED, "second", -1)
    assert Agreement(sharing).before_first_step(Own(), 3) is None
    # Of the two, the last is enough: who is still at a former run takes that as its end.
    said = [(vote.text, vote.leaves) for vote in line.sent]
    assert said == [("first", True), ("second", True), ("second", True), ("nothing", False)]


def test_connection_that_was_lost_as_a_rank_left_is_made_anew() -> None:
    line = Scripted(RankError("gone"), same)
    sharing = line.sharing()
    for _ in range(5):
        sharing.ranks.begin_run()
    Agreement(sharing).leave(Word.FAILED, "boom", -1)
    sharing.ranks.begin_call()
    agreement = Agreement(sharing)
    assert agreement.before_first_step(Own(), 3) is None
    # As of a rank that has noticed it before its call.
    noticed = Ranks((0, 1), 1, None)
    noticed.begin_call()
    assert line.sent[-1].place.run == noticed.begin_run()
    assert sharing.ranks.begin_run() == noticed.begin_run()


def test_who_leaves_a_later_run_has_left_this_one() -> None:
    line = Scripted(of_run(7, leaves=True))
    agreement = Agreement(line.sharing())
    found = agreement.before_first_step(Own(), 3)
    assert found is not None
    assert (found.word, found.is_final, agreement.is_over) == (Word.FAILED, True, True)


def test_runs_of_different_numbers_are_refused_and_counted_on() -> None:
    line = Scripted(of_run(7))
    sharing = line.sharing()
    with pytest.raises(RankError, match="different steps"):
        Agreement(sharing).before_first_step(Own(), 3)
    assert sharing.ranks.begin_run() == 8
