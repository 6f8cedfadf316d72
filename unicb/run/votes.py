"""Each rank says a word at the end of a step, and this is what follows from what all have said.

Nothing here talks to anybody: votes go in, a verdict comes out.
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

#: Bytes of a vote.
SIZE = 512
_HEAD = struct.Struct("<8i8s")
_TEXT = SIZE - _HEAD.size


class Word(IntEnum):
    """Name what a rank wants of the run; of several, the highest wins."""

    NONE = 0
    INTERRUPT = 1
    CANCEL = 2
    FAILED = 3


class Phase(IntEnum):
    """Name the part of a run in which a rank says it."""

    BEFORE = 0  # the first step
    STEP = 1
    AFTER = 2  # the last step, once callbacks have been told of the run's end


@dataclass(frozen=True)
class Place:
    """Tell where in its run a rank is.

    Attributes:
        run: which of the group's runs, from 0.
        phase: of the run.
        step: index of the step that has ended; -1 before the first.
        count: number of the steps.
        is_last: whether the loop computes no further step.
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
    """Hold what one rank says.

    Attributes:
        word: what it wants.
        place: where it is.
        leaves: whether it takes no further part in the run.
        latents: whether an interrupted run decodes the latents as they are, and not the denoised.
        digest: 8 bytes of what it has bound, and how.
        text: why it failed; or before the first step, what it has bound.
    """

    word: Word
    place: Place
    leaves: bool = False
    latents: bool = False
    digest: bytes = bytes(8)
    text: str = ""

    def packed(self) -> npt.NDArray[np.uint8]:
        """Return the vote as ``numpy.uint8 [SIZE]``. Of a longer text, the beginning is kept."""
        place = self.place
        flags = self.leaves | self.latents << 1 | place.is_last << 2
        text = self.text.encode()[:_TEXT]
        numbers = self.word, flags, place.run, place.phase, place.step, place.count, len(text), 0
        raw = _HEAD.pack(*numbers, self.digest) + text
        return np.frombuffer(raw.ljust(SIZE, b"\0"), dtype=np.uint8).copy()

    @classmethod
    def unpacked(cls, raw: npt.NDArray[Any]) -> Vote:
        """Return the vote that :meth:`packed` has made this of."""
        data = raw.astype(np.uint8).tobytes()
        word, flags, run, phase, step, count, length, _, digest = _HEAD.unpack_from(data)
        text = data[_HEAD.size : _HEAD.size + length].decode(errors="replace")
        place = Place(run, Phase(phase), step, count, bool(flags & 4))
        return cls(Word(word), place, bool(flags & 1), bool(flags & 2), digest, text)


@dataclass(frozen=True)
class Verdict:
    """Hold what a round of votes comes to.

    Attributes:
        word: the highest.
        rank: the first of the ranks that have said it.
        text: what that rank says of it.
        latents: what that rank says of the picture.
        is_final: whether no further round follows, since a rank has left.
        is_known_to_all: whether each rank has said something, and so waits to hear what it is.
        is_void: whether a rank has said only now that it left a former run: it hears of this one
            in the next round, where all say the same again.
    """

    word: Word
    rank: int
    text: str
    latents: bool
    is_final: bool
    is_known_to_all: bool
    is_void: bool = False


def verdict(votes: Sequence[Vote], ranks: Sequence[int]) -> Verdict:
    """Return what these come to for those who stay; ``ranks``: whose they are, in their order.

    Who leaves a run that is not theirs has left theirs, too, if it is a later one. If it is a
    former one, that word comes too late for anybody, and its rank has yet to come to their run.

    Raises:
        RankError: the ranks are not doing the same.
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


def _where(vote: Vote, rank: int) -> str:
    return f"rank {rank} is {vote.place} in run {vote.place.run}"


class Decision:
    """Decide when a word takes effect, so that it does on every rank at the same step.

    Whoever has something to say waits to hear what the others say; the others go on, and hear of
    it at the end of the next step. So what every rank says takes effect at once, and anything else
    at the end of the next step, where all wait. They wait where no step follows, too.

    Before an interrupt takes effect, each rank has said its last word, and takes no further request
    from its caller. Where nobody knew beforehand that the run ends with this step, all say their
    words once more: a rank may have been asked to cancel after its first word.

    Args:
        now: whether all wait at each step's end.

    Attributes:
        asks_again: whether all are to say a word once more, and at once.
    """

    def __init__(self, now: bool) -> None:
        self.asks_again = False
        self._now = now
        self._due: Verdict | None = None
        self._is_final = False

    def learn(self, before: Verdict) -> None:
        """Take note of what a round has come to that was not waited for."""
        if before.word is not Word.NONE:
            self._due = before

    def ends(self, no_step_follows: bool) -> bool:
        """Return whether the run ends with this step, whatever is said at its end."""
        return no_step_follows or self._due is not None

    def waits(self, own: Word, no_step_follows: bool) -> bool:
        """Return whether whoever says this is to wait for what the others say. What was said once
        is to be said again, until it takes effect."""
        self._is_final = self.ends(no_step_follows)
        return self._now or self._is_final or own is not Word.NONE

    def heard(self, found: Verdict) -> Verdict | None:
        """Return what takes effect now, of a round that was waited for; None: nothing yet."""
        due = self._due
        if self._is_final or found.is_final:
            return found if due is None or found.word > due.word else due
        acts_at_once = self._now or found.is_known_to_all
        if acts_at_once and found.word > Word.INTERRUPT:
            return found
        self.learn(found)
        self.asks_again = acts_at_once and found.word is Word.INTERRUPT
        return None
