"""Note numbers and words about a run, for its report and for the log."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from unicb.callback import Callback, name_of

if TYPE_CHECKING:
    from unicb.run.ending import Outcome
    from unicb.run.run import Run

log = logging.getLogger("unicb")

#: Each callback's entries about a run, by the callback's name.
Notes: TypeAlias = Mapping[str, Mapping[str, Any]]

_LONGEST_ERROR = 200


class Stop(NamedTuple):
    """A stop says who ended a run early, and after which step.

    Attributes:
        by: a callback's name; or ``interrupt()``, ``cancel()``, ``Ctrl-C`` and the like, if the
            request came from outside the run.
        after_step: index of the last step that had ended, from 0; -1 if none had.
    """

    by: str
    after_step: int


class CutSpan(NamedTuple):
    """A span of steps in which guidance was cut.

    Attributes:
        after_step: index of the step before the span; -1 for a cut from the first step on.
        until_step: index of the span's last step; None: the run's last.
    """

    after_step: int
    until_step: int | None = None


class RowCount:
    """Count the denoiser's rows in the steps in which guidance is cut.

    Attributes:
        computed: number of rows that the denoiser computed.
        whole: number of rows that it would have computed without the cut.
        steps: number of steps in which guidance was cut.
    """

    def __init__(self) -> None:
        self.computed = self.whole = self.steps = 0
        self._at_step = 0

    def step_end(self) -> None:
        """A step with a cut, or with a cut that had no effect, has ended."""
        self.steps += self.whole > self._at_step
        self._at_step = self.whole

    def saved(self, steps: int) -> float:
        """Return the share, in 0..1, of the rows of this many steps that were not computed,
        assuming that every step would have as many rows without a cut as the cut steps."""
        if not self.steps or not steps:
            return 0.0
        return (self.whole - self.computed) * self.steps / (self.whole * steps)


class Record:
    """A record holds notes about one run. It refers to no tensor and no frame, and to the run only
    until its end.

    Args:
        name: name of the pipeline's class.
        called_at: when the pipeline was called, in seconds on ``time.monotonic``'s clock.
        notes: returns the callbacks' entries about the run so far.
    """

    def __init__(self, name: str, called_at: float, notes: Callable[[], Notes]) -> None:
        self.name, self.called_at = name, called_at
        #: When each step ended, on the same clock.
        self.step_ends: list[float] = []
        self.num_timesteps = 0
        self.stop: Stop | None = None
        self.cuts: list[CutSpan] = []
        self.rows = RowCount()
        self.warnings: list[str] = []
        self.outcome: Outcome | None = None
        self.error: str | None = None
        #: Seconds from the last step's end to the call's return; None if not known.
        self.decode_seconds: float | None = None
        self._notes: Callable[[], Notes] | Notes = notes
        #: Index of the step after which a cut was requested that has left nothing out yet; or None.
        self._asked_after: int | None = None

    @property
    def notes(self) -> Notes:
        """Return the callbacks' entries about the run."""
        notes = self._notes
        return notes() if callable(notes) else notes

    def stopped(self, by: str, after_step: int) -> None:
        """Note who ends the run early; only the first call counts."""
        if self.stop is None:
            self.stop = Stop(by, after_step)
            if log.isEnabledFor(logging.DEBUG):
                where = f"after step {after_step} of {self.num_timesteps}"
                log.debug("%s: stopped %s by %s", self.name, where, by)

    def cut(self, after_step: int) -> None:
        """Note that guidance is to be cut from the next step on; the cut is added to :attr:`cuts`
        once it leaves something out."""
        self._asked_after = after_step

    def restored(self, after_step: int) -> None:
        """Note that guidance is restored from the next step on."""
        asked_after, self._asked_after = self._asked_after, None
        if asked_after is not None or after_step + 1 >= self.num_timesteps:
            return  # the cut had no effect, or there is no next step
        self.cuts[-1] = CutSpan(self.cuts[-1].after_step, after_step)
        if log.isEnabledFor(logging.DEBUG):
            log.debug(
                "%s: guidance back after step %d of %d", self.name, after_step, self.num_timesteps
            )

    def called(self, model: str, computed: int, whole: int, unit: str = "rows") -> None:
        """Note one call of a denoiser, or all calls of a step, while guidance is cut.

        Args:
            model: the pipeline's name for the denoiser.
            computed: number of units, such as rows, that it computed.
            whole: number of units that it would have computed without the cut.
            unit: the unit, for the log.
        """
        self.rows.computed += computed
        self.rows.whole += whole
        if self._asked_after is not None and computed < whole:
            after, self._asked_after = self._asked_after, None
            self.cuts.append(CutSpan(after))
            if log.isEnabledFor(logging.DEBUG):
                where = "before the first step" if after < 0 else f"after step {after}"
                log.debug(
                    *("%s: guidance cut %s of %d: %s %d → %d %s", self.name, where),
                    *(self.num_timesteps, model, whole, computed, unit),
                )

    def warned(self, message: str) -> None:
        """Note a warning."""
        self.warnings.append(message)

    def ended(self, outcome: Outcome, error: BaseException | None) -> None:
        """Note how the run has ended; only the first call counts."""
        if self.outcome is not None:
            return
        self.outcome = outcome
        if error is not None:
            self.error = in_a_line(error)
        if log.isEnabledFor(logging.DEBUG):
            steps = f"{len(self.step_ends)} of {self.num_timesteps} steps"
            why = f" ({self.error})" if self.error else ""
            log.debug("%s: run %s after %s%s", self.name, outcome, steps, why)

    def close(self) -> None:
        """Collect the callbacks' entries for the last time. Idempotent."""
        self._notes = self.notes


def notes_of(run: Run, callbacks: Sequence[tuple[Callback, Sequence[str]]]) -> Notes:
    """Return what the callbacks say of the run, by their names; several of one name are
    numbered."""
    found: dict[str, Mapping[str, Any]] = {}
    for callback, _ in callbacks:
        try:
            said = callback.on_report(run)
        except Exception as error:  # a report costs no run
            said = {"on_report": in_a_line(error)}
        if said:
            name, number = name_of(callback), 2
            while name in found:
                name, number = f"{name_of(callback)} {number}", number + 1
            found[name] = dict(said)
    return found


def in_a_line(error: BaseException) -> str:
    """Return the error's class and the first line of its message."""
    text = f"{type(error).__name__}: {error}".splitlines()[0]
    return text if len(text) <= _LONGEST_ERROR else text[: _LONGEST_ERROR - 1] + "…"
