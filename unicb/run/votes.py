"""Decide from the ranks' votes, one each at the end of a step, what all of them do.

Nothing here communicates: votes go in, a verdict comes out.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from unicb.errors import RankError

#: The size of a vote in bytes.
SIZE = 512
_HEAD = struct.Struct("<8i8s")
_TEXT = SIZE - _HEAD.size


class Word(IntEnum):
    """Name what a rank wants of the run; the highest word of all ranks wins."""

    NONE = 0
    INTERRUPT = 1
    CANCEL = 2
    FAILED = 3


class Phase(IntEnum):
    """Name the part of a run in which a rank votes."""

    BEFORE = 0  # before the first step
    STEP = 1
    AFTER = 2  # after the last step, when callbacks have been notified of the run's end


@dataclass(frozen=True)
class Place:
    """Say where in its run a rank is.

    Attributes:
        run: number of the run in the group, from 0.
        phase: the phase of the run.
        step: index of the step that has ended; -1 before the first step.
        count: number of steps of the run.
        is_last: True if the loop computes no further step.
    """

    run: int
    phase: Phase
    step: int
    count: int
    is_last: bool = False

    def __str__(self) -> str:
        if self.phase is Phase.BEFORE:
            return f"before the first of {self.count} steps"
        said = f"at the end of step {self.step} of {self.count}"
        return f"behind its last step, {self.step}" if self.phase is Phase.AFTER else said


@dataclass(frozen=True)
class Vote:
    """Hold one rank's vote.

    Attributes:
        word: what the rank wants.
        place: where in the run the rank is.
        leaves: True if the rank takes no further part in the run.
        latents: True if an interrupted run is to decode the loop's latents instead of the denoised
            ones.
        digest: a hash, 8 bytes, of the rank's callbacks and settings.
        text: why the rank failed; or, before the first step, its callbacks in words.
        request: a hash, 31 bits, of what the call is to make; 0 in any later vote.
    """

    word: Word
    place: Place
    leaves: bool = False
    latents: bool = False
    digest: bytes = bytes(8)
    text: str = ""
    request: int = 0

    def packed(self) -> npt.NDArray[np.uint8]:
        """Return the vote as ``numpy.uint8 [SIZE]``. A text that is too long is cut."""
        place = self.place
        flags = self.leaves | self.latents << 1 | place.is_last << 2
        text = self.text.encode()[:_TEXT]
        where = place.run, place.phase, place.step, place.count
        raw = _HEAD.pack(self.word, flags, *where, len(text), self.request, self.digest) + text
        return np.frombuffer(raw.ljust(SIZE, b"\0"), dtype=np.uint8).copy()

    @classmethod
    def unpacked(cls, raw: npt.NDArray[Any]) -> Vote:
        """Return the vote that :meth:`packed` packed."""
        data = raw.astype(np.uint8).tobytes()
        word, flags, run, phase, step, count, length, request, digest = _HEAD.unpack_from(data)
        text = data[_HEAD.size : _HEAD.size + length].decode(errors="replace")
        place = Place(run, Phase(phase), step, count, bool(flags & 4))
        leaves, latents = bool(flags & 1), bool(flags & 2)
        return cls(Word(word), place, leaves, latents, digest, text, request)


@dataclass(frozen=True)
class Verdict:
    """Hold the result of a round of votes.

    Attributes:
        word: the highest word.
        rank: the first of the ranks that voted for it.
        text: that rank's ``text``.
        latents: that rank's ``latents``.
        is_final: True if no further round follows, because a rank has left.
        is_known_to_all: True if each rank has voted for something, and so waits for the result.
        is_void: True if a rank has said only now that it left a former run: it hears of this run in
            the next round, in which all ranks repeat their words.
    """

    word: Word
    rank: int
    text: str
    latents: bool
    is_final: bool
    is_known_to_all: bool
    is_void: bool = False


def verdict(votes: Sequence[Vote], ranks: Sequence[int]) -> Verdict:
    """Return the result of these votes for the ranks that stay; ``ranks`` has the number of each
    vote's rank.

    A rank that leaves a later run than theirs has left theirs, too. If it leaves a former run, that
    word comes too late for anybody, and the rank has yet to come to their run.

    Raises:
        RankError: the ranks are at different points of the run, have different callbacks, or are to
            make different things.
    """
    said = list(zip(votes, ranks, strict=True))
    staying = [(vote, rank) for vote, rank in said if not vote.leaves]
    for vote, rank in staying[1:]:
        _check_same(*staying[0], vote, rank)
    run = staying[0][0].place.run
    heard = [(vote, rank) for vote, rank in said if vote.place.run >= run]
    highest, by = max(heard, key=lambda each: each[0].word)
    return Verdict(
        highest.word,
        by,
        highest.text,
        highest.latents,
        is_final=len(staying) < len(heard),
        is_known_to_all=all(vote.word != Word.NONE for vote, _ in heard),
        is_void=len(heard) < len(said),
    )


def was_heard(vote: Vote, votes: Sequence[Vote]) -> bool:
    """Return whether all ranks take note of this one, among those of its round: none of them was
    still at a former run."""
    return all(other.place.run >= vote.place.run for other in votes)


def _check_same(vote: Vote, rank: int, other: Vote, other_rank: int) -> None:
    if vote.digest != other.digest:
        bound = [
            f"rank {number}: {each.text}" if each.place.phase is Phase.BEFORE else ""
            for number, each in ((rank, vote), (other_rank, other))
        ]
        raise RankError(
            f"ranks {rank} and {other_rank} share a run, and have not bound the same: "
            f"{'; '.join(filter(None, bound)) or 'look at the arguments of bind on each'}. Bind "
            "the same callbacks, with the same arguments, on every rank; what shows or writes "
            "something does so on the first rank alone"
        )
    if vote.place != other.place:
        raise RankError(
            "the ranks that share a run are at different steps: "
            f"{_where(vote, rank)}, {_where(other, other_rank)}; call the pipeline on every rank, "
            "with the same arguments"
        )
    if vote.request != other.request:
        raise RankError(
            f"ranks {rank} and {other_rank} share a run, and were called with different prompts or "
            "sizes; call the pipeline on every rank, with the same arguments"
        )


def _where(vote: Vote, rank: int) -> str:
    return f"rank {rank} is {vote.place} in run {vote.place.run}"


class Decision:
    """Decide when a word takes effect, so that it is the same step on every rank.

    A rank that votes for something waits for the other votes; ranks that do not go on, and learn of
    it at the end of the next step. So a word of every rank takes effect at once, and any other word
    at the end of the next step, where all wait. All wait as well if no step follows.

    Before an interrupt takes effect, each rank has said its last word, and takes no further request
    from its caller. Where nobody knew beforehand that the run ends with this step, all say their
    words once more: a rank may have been asked to cancel after its first word.

    Args:
        now: True: all ranks wait at the end of each step.

    Attributes:
        asks_again: True if all ranks are to say their words once more, at once.
    """

    def __init__(self, now: bool) -> None:
        self.asks_again = False
        self._now = now
        self._due: Verdict | None = None
        self._is_final = False

    def learn(self, before: Verdict) -> None:
        """Note the result of an earlier round that was not waited for."""
        if before.word is not Word.NONE:
            self._due = before

    def ends(self, no_step_follows: bool) -> bool:
        """Return whether the run ends with this step, whatever the votes at its end."""
        return no_step_follows or self._due is not None

    def waits(self, own: Word, no_step_follows: bool) -> bool:
        """Return whether a rank with this word waits for the other votes. A rank repeats its word
        until it takes effect."""
        self._is_final = self.ends(no_step_follows)
        return self._now or self._is_final or own is not Word.NONE

    def heard(self, found: Verdict) -> Verdict | None:
        """Return the verdict that takes effect now, from a round that was waited for; None: nothing
        yet."""
        due = self._due
        if self._is_final or found.is_final:
            return found if due is None or found.word > due.word else due
        acts_at_once = self._now or found.is_known_to_all
        if acts_at_once and found.word > Word.INTERRUPT:
            return found
        self.learn(found)
        self.asks_again = acts_at_once and found.word is Word.INTERRUPT
        return None
