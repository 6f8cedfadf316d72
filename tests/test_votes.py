"""When a word takes effect: decided without talking to anybody, so tried in every order."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from unicb import RankError
from unicb.run import votes
from unicb.run.votes import SIZE, Decision, Phase, Place, Verdict, Vote, Word, verdict, was_heard

STEPS = 4
HERE = Place(0, Phase.STEP, 3, 10)


@pytest.mark.parametrize(
    "vote",
    [
        Vote(Word.NONE, HERE),
        Vote(
            Word.FAILED, Place(7, Phase.BEFORE, -1, 30), True, False, b"12345678", "ü\n" * 3, 2**30
        ),
        Vote(Word.INTERRUPT, Place(2**20, Phase.AFTER, 999, 1000, True), False, True),
    ],
)
def test_vote_arrives_as_it_was_sent(vote: Vote) -> None:
    assert vote.packed().shape == (SIZE,)
    assert Vote.unpacked(vote.packed()) == vote
    assert Vote.unpacked(vote.packed().astype("float32")) == vote  # as MindSpore carries it


def test_long_text_is_cut() -> None:
    sent = Vote(Word.FAILED, HERE, text="ü" * 1000)
    said = Vote.unpacked(sent.packed()).text
    assert said.rstrip("\N{REPLACEMENT CHARACTER}") == "ü" * 236


def test_highest_word_wins_and_the_first_that_says_it_is_named() -> None:
    words = [Word.INTERRUPT, Word.CANCEL, Word.NONE, Word.CANCEL]
    said = [Vote(word, HERE, text=f"{number}") for number, word in enumerate(words)]
    found = verdict(said, (4, 5, 6, 7))
    assert (found.word, found.rank, found.text) == (Word.CANCEL, 5, "1")
    assert not found.is_final
    assert not found.is_known_to_all


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"place": replace(HERE, step=4)}, "rank 1 is at the end of step 4 of 10"),
        ({"place": replace(HERE, count=11)}, "at the end of step 3 of 11"),
        ({"place": replace(HERE, run=1)}, "in run 1"),
        ({"place": replace(HERE, phase=Phase.AFTER)}, "behind its last step"),
        ({"digest": b"other   "}, "have not bound the same"),
    ],
)
def test_ranks_that_do_not_do_the_same(other: Any, message: str) -> None:
    vote = Vote(Word.NONE, HERE)
    with pytest.raises(RankError, match=message):
        verdict([vote, replace(vote, **other)], (0, 1))


def test_rank_that_leaves_is_at_no_step() -> None:
    leaves = Vote(Word.FAILED, replace(HERE, step=9), leaves=True, text="gone")
    found = verdict([Vote(Word.NONE, HERE), leaves], (0, 1))
    assert (found.word, found.text, found.is_final) == (Word.FAILED, "gone", True)


HERE_LATER = replace(HERE, run=5)
STAYS = Vote(Word.NONE, HERE_LATER)


def leaves(run: int, text: str = "") -> Vote:
    return Vote(Word.FAILED, replace(HERE, run=run), leaves=True, text=text)


def test_who_left_a_former_run_has_yet_to_come() -> None:
    found = verdict([STAYS, leaves(4), STAYS], (0, 1, 2))
    assert (found.word, found.is_void, found.is_final) == (Word.NONE, True, False)
    # Though another has left this run, all wait for the one that has yet to come to it.
    found = verdict([STAYS, leaves(4), leaves(5)], (0, 1, 2))
    assert found.is_void
    # Two that are in different runs are so all the same.
    with pytest.raises(RankError, match="different steps"):
        verdict([STAYS, leaves(4), replace(STAYS, place=HERE)], (0, 1, 2))


def test_who_left_a_later_run_has_left_this_one() -> None:
    found = verdict([STAYS, leaves(6, "gone")], (0, 1))
    assert (found.word, found.text, found.is_void, found.is_final) == (
        Word.FAILED,
        "gone",
        False,
        True,
    )


def test_who_leaves_is_heard_where_nobody_is_at_a_former_run() -> None:
    assert was_heard(leaves(5), [leaves(5), STAYS, leaves(6)])
    assert not was_heard(leaves(5), [leaves(5), STAYS, leaves(4)])
    assert not was_heard(leaves(6), [leaves(6), STAYS])


# What one rank says at each step's end; once said, a word is said again.


def said_from(word: Word, step: int) -> Callable[[int], Word]:
    return lambda at: word if at >= step else Word.NONE


def simulate(says: list[Callable[[int], Word]], now: bool) -> list[tuple[int, Word]]:
    """Where each rank's run ends, and with what. What a rank does not wait for it hears at the next
    step's end, as they all do."""
    decisions = [Decision(now) for _ in says]
    ended: list[tuple[int, Word] | None] = [None] * len(says)
    unheard: list[Verdict | None] = [None] * len(says)
    for step in range(STEPS):
        words = [say(step) for say in says]
        last = step + 1 == STEPS
        for number, decision in enumerate(decisions):
            if (before := unheard[number]) is not None:
                decision.learn(before)
        is_round = True
        while is_round:
            asked = [decision.ends(last) for decision in decisions]
            pairs = zip(decisions, words, strict=True)
            waits = [decision.waits(word, last) for decision, word in pairs]
            votes = [Vote(word, replace(HERE, step=step)) for word in words]
            found = verdict(votes, range(len(says)))
            for number, decision in enumerate(decisions):
                unheard[number] = None if waits[number] else found
                effect = decision.heard(found) if waits[number] else None
                if effect is not None and (effect.word is not Word.NONE or last):
                    # Whoever takes an interrupt for the end has taken no request since its word.
                    assert asked[number] or effect.word is not Word.INTERRUPT
                    ended[number] = step, effect.word
            is_over = any(each is not None for each in ended)
            again = {decision.asks_again and not is_over for decision in decisions}
            assert len(again) == 1, "one rank says its word again, and another does not"
            is_round = again.pop()
        if any(each is not None for each in ended):
            break  # one that goes on would wait for those that have ended, for ever
    assert all(each is not None for each in ended), "one rank has ended, and another goes on"
    return [each for each in ended if each is not None]


def check() -> None:
    """Every word of two ranks, from every step on, and of three of them some."""
    kinds = [(word, step) for word in Word for step in range(STEPS)]
    for now in (False, True):
        for ranks in [
            *itertools.product(kinds, repeat=2),
            *itertools.product(kinds[3::5], repeat=3),
        ]:
            found = simulate([said_from(*rank) for rank in ranks], now)
            assert len({*found}) == 1, (now, ranks, found)
            step, word = found[0]
            saying = [(at, said) for said, at in ranks if said is not Word.NONE]
            first = min((at for at, _ in saying), default=STEPS - 1)
            all_at_once = len(saying) == len(ranks) and len({at for at, _ in saying}) == 1
            expected = first if now or all_at_once else min(first + 1, STEPS - 1)
            assert step == expected, (now, ranks, found)
            assert word == max((said for at, said in saying if at <= step), default=Word.NONE)


def test_all_ranks_end_at_the_same_step_with_the_same_word() -> None:
    check()


class HearsAtOnce(Decision):
    """What one rank says takes effect for that rank at once."""

    def heard(self, found: Verdict) -> Verdict | None:
        return found


class ForgetsWhatItHeard(Decision):
    def learn(self, before: Verdict) -> None:
        pass


class WaitsForNobodyAtTheEnd(Decision):
    def ends(self, no_step_follows: bool) -> bool:
        return super().ends(False)


class WaitsForNobodyWithAWord(Decision):
    def waits(self, own: Word, no_step_follows: bool) -> bool:
        super().waits(own, no_step_follows)
        return self._is_final


class PrefersWhatItHeard(Decision):
    def heard(self, found: Verdict) -> Verdict | None:
        effect = super().heard(found)
        return effect if effect is None or self._due is None else self._due


class InterruptsAtTheFirstWord(Decision):
    """A cancel that is accepted after that is lost."""

    def heard(self, found: Verdict) -> Verdict | None:
        effect = super().heard(found)
        return found if self.asks_again else effect


MUTANTS = [
    InterruptsAtTheFirstWord,
    HearsAtOnce,
    ForgetsWhatItHeard,
    WaitsForNobodyAtTheEnd,
    WaitsForNobodyWithAWord,
    PrefersWhatItHeard,
]


@pytest.mark.parametrize("mutant", MUTANTS)
def test_check_can_fail(mutant: type[Decision], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "Decision", mutant)
    with pytest.raises(AssertionError):
        check()


def test_lowest_word_does_not_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(votes, "max", min, raising=False)
    with pytest.raises(AssertionError):
        check()
