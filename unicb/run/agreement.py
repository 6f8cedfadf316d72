"""The ranks that share a run agree on its end in rounds of votes, one for each step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from unicb.errors import RankError
from unicb.run.sharing import Sharing
from unicb.run.votes import Decision, Phase, Place, Verdict, Vote, Word, verdict, was_heard


@dataclass(frozen=True)
class Own:
    """Hold what this rank has to say.

    Attributes:
        word: what it wants.
        text: why it failed.
        latents: whether an interrupted run decodes the latents as they are.
    """

    word: Word = Word.NONE
    text: str = ""
    latents: bool = False


class _Left(NamedTuple):
    """Hold what a rank has said as it left a run, and how to hear what the others said then."""

    vote: Vote
    heard: Callable[[], Sequence[Any]]


class Agreement:
    """The rounds of one run.

    The ranks' words are paired by their order alone. A rank that leaves a run does not wait, so its
    word may come when the others are at their next run: they say theirs again then. So does this
    rank before its next run, where the others were still at a former one as it left.

    Args:
        sharing: how the run is shared, and with which ranks.
        request: returns a hash of what the call is to make; called before the first step.

    Attributes:
        is_over: whether this rank takes no further part.
        has_ended_well: whether all ranks have said that their run ended as it should.
    """

    def __init__(self, sharing: Sharing, request: Callable[[], int] = lambda: 0) -> None:
        self.is_over = self.has_ended_well = False
        self._has_met = False
        self._sharing, self._ranks = sharing, sharing.ranks
        self._decision = Decision(sharing.agree == "now")
        self._digest, self._request = sharing.digest(), request
        self._run = self._ranks.begin_run()
        self._pending: Callable[[], Sequence[Any]] | None = None

    def before_first_step(self, own: Own, count: int) -> Verdict | None:
        """Say this before the first step, and wait for the others."""
        self._has_met = True
        self._be_heard()
        said = Own(own.word, own.text or self._sharing.bound, own.latents)
        request = self._request()
        while True:
            self._say(said, Place(self._run, Phase.BEFORE, -1, count), request)
            found = self._hear()
            if not found.is_void:
                return self._ended(found)

    def step_end(
        self, own: Callable[[bool], Own], step: int, count: int, no_step_follows: bool
    ) -> Verdict | None:
        """Say at a step's end what this rank has to say. Returns what takes effect there; None: the
        loop goes on.

        Args:
            own: gives that; it is asked with whether the run ends with this step, whatever is said.

        Raises:
            RankError: a rank is gone, did not answer in time, or is doing something else.
        """
        if not self._has_met:  # its models are not known, so that nobody saw the run begin
            begun = self.before_first_step(Own(), count)
            if begun is not None:
                return begun
        if self._pending is not None:
            before = self._hear()
            if before.is_final:
                return self._ended(before)
            self._decision.learn(before)
        decision = self._decision
        place = Place(self._run, Phase.STEP, step, count, no_step_follows)
        while True:
            said = own(decision.ends(no_step_follows))
            waits = decision.waits(said.word, no_step_follows)
            self._say(said, place)
            if not waits:
                return None
            found = decision.heard(self._hear())
            if found is not None:
                return self._ended(found)
            if not decision.asks_again:
                return None

    def after_last_step(self, own: Own, step: int, count: int) -> Verdict | None:
        """Say this once the callbacks know of the run's end, and wait for the others."""
        place = Place(self._run, Phase.AFTER, step, count)
        self._say(own, place)
        found = self._hear()
        self.is_over, self.has_ended_well = True, found.word is Word.NONE
        return self._ended(found)

    def leave(self, word: Word, text: str, step: int) -> None:
        """Say this, and take no further part: nobody is waited for, and nothing is raised."""
        if self.is_over:
            return
        self.is_over, self._pending = True, None
        place = Place(self._run, Phase.STEP, step, 0)
        vote = Vote(word, place, leaves=True, digest=self._digest, text=text)
        try:
            self._ranks.left = _Left(vote, self._send(vote))
        except RankError:
            self._ranks.count_anew()  # there is nobody to tell

    def _be_heard(self) -> None:
        """Wait until all have heard what this rank said as it left a former run."""
        try:
            while (left := self._ranks.left) is not None:
                self._ranks.left = None
                if not was_heard(left.vote, [Vote.unpacked(raw) for raw in left.heard()]):
                    self._ranks.left = _Left(left.vote, self._send(left.vote))
        except RankError:
            # The connection was lost in that run, and all begin with another.
            self._ranks.count_anew()
            self._ranks.begin_call()
            self._run = self._ranks.begin_run()

    def _ended(self, found: Verdict) -> Verdict | None:
        """Return what has taken effect. None, if that is nothing."""
        if found.is_final or found.word >= Word.CANCEL:
            self.is_over = True
        return None if found.word is Word.NONE else found

    def _say(self, own: Own, place: Place, request: int = 0) -> None:
        vote = Vote(own.word, place, False, own.latents, self._digest, own.text, request)
        with self._over_if_it_fails():
            self._pending = self._send(vote)

    def _send(self, vote: Vote) -> Callable[[], Sequence[Any]]:
        sharing = self._sharing
        heard = sharing.backend.agree(vote.packed(), vote.place.step, self._ranks.group)
        return lambda: heard(sharing.timeout)

    def _hear(self) -> Verdict:
        assert self._pending is not None
        heard, self._pending = self._pending, None
        with self._over_if_it_fails():
            votes = [Vote.unpacked(raw) for raw in heard()]
        try:
            return verdict(votes, self._ranks.all)
        except RankError:
            self.is_over = True
            self._ranks.catch_up(max(vote.place.run for vote in votes))
            raise

    @contextmanager
    def _over_if_it_fails(self) -> Iterator[None]:
        try:
            yield
        except RankError:  # of another error, such as Ctrl-C here, the others are told
            self.is_over = True
            self._ranks.count_anew()
            raise


def text_of(error: BaseException) -> str:
    """Return an error in one line."""
    said = str(error).strip()
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
