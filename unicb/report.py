"""A report says what a run did: ``print(callbacks.report)``."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self

from unicb._sheet import Line, as_html, as_text
from unicb.run.record import CutSpan, Record, Stop

if TYPE_CHECKING:
    from unicb.run.handle import State

__all__ = ["CutSpan", "Report", "Stop"]


@dataclass(frozen=True)
class Report:
    """A report says what a run has done so far. ``print`` shows it in one screen.

    Attributes:
        pipeline: name of the pipeline's class.
        outcome: as :attr:`unicb.Binding.state`: ``"pending"`` before the first step, ``"running"``,
            or how the run has ended.
        error: the error that ended the run, in one line; None if there was none, or it is not
            known.
        steps: number of steps that have ended.
        num_timesteps: number of steps in all; 0 before the first has ended. Both numbers count half
            steps, as the frameworks do.
        first_step_seconds: seconds from the pipeline's call to the end of the first step.
        step_seconds: seconds of each further step, from the end of the step before to its own end.
        decode_seconds: seconds from the end of the last step to the call's return; None if not
            known.
        cuts: the spans of steps in which guidance was cut.
        rows_saved: the share of the denoiser's rows that the cuts saved, in 0..1, assuming that all
            steps would have had as many rows as the cut ones.
        stopped: who ended the run early, and at which step; None if nobody did.
        callbacks: entries of the callbacks, by their names, such as how many previews were shown
            and how many dropped.
        warnings: warnings of unicb and its callbacks during the run.

    Example:
        >>> callbacks = bind(pipe, CFGCutoff(0.4))
        >>> image = callbacks("a red star")[0]
        >>> report = callbacks.report
        >>> report.outcome, report.steps
        ('finished', 10)
    """

    pipeline: str
    outcome: State
    error: str | None = None
    steps: int = 0
    num_timesteps: int = 0
    first_step_seconds: float | None = None
    step_seconds: tuple[float, ...] = ()
    decode_seconds: float | None = None
    cuts: tuple[CutSpan, ...] = ()
    rows_saved: float = 0.0
    stopped: Stop | None = None
    callbacks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @classmethod
    def empty(cls, pipeline: str, outcome: State) -> Self:
        """Make the report of a run that has not begun, or whose call ended before the run began."""
        return cls(pipeline, outcome)

    @classmethod
    def of(cls, record: Record, outcome: State) -> Self:
        """Make a report from what a record has noted so far."""
        ends = tuple(record.step_ends)  # a copy: while the run goes on, the list grows
        return cls(
            pipeline=record.name,
            outcome=outcome,
            error=record.error,
            steps=len(ends),
            num_timesteps=record.num_timesteps,
            first_step_seconds=ends[0] - record.called_at if ends else None,
            step_seconds=tuple(after - before for before, after in pairwise(ends)),
            decode_seconds=record.decode_seconds,
            cuts=tuple(record.cuts),
            rows_saved=record.rows.saved(max(len(ends), record.rows.steps)),
            stopped=record.stop,
            callbacks=record.notes,
            warnings=tuple(record.warnings),
        )

    @property
    def seconds_per_step(self) -> float | None:
        """Return the median seconds of all steps but the first; None if only one step has ended."""
        return statistics.median(self.step_seconds) if self.step_seconds else None

    def as_dict(self) -> dict[str, Any]:
        """Return all attributes as a dict of JSON values."""
        found = {name: getattr(self, name) for name in self.__dataclass_fields__}
        found["step_seconds"] = list(self.step_seconds)
        found["seconds_per_step"] = self.seconds_per_step
        found["cuts"] = [cut._asdict() for cut in self.cuts]
        found["stopped"] = None if self.stopped is None else self.stopped._asdict()
        found["callbacks"] = {name: dict(said) for name, said in self.callbacks.items()}
        found["warnings"] = list(self.warnings)
        return found

    def _title(self) -> str:
        if not self.num_timesteps:
            return f"{self.pipeline}: {self.outcome}, no step has ended"
        return f"{self.pipeline}: {self.outcome}, {self.steps} of {self.num_timesteps} steps"

    def _lines(self) -> Iterator[Line]:
        if self.error is not None:
            yield "error", self.error
        if self.first_step_seconds is not None:
            yield "time", self._times()
        if self.cuts:
            spans = "; ".join(map(_span, self.cuts))
            yield "guidance", f"cut {spans}: {self.rows_saved:.0%} of the denoiser's rows saved"
        if self.stopped is not None:
            after = self.stopped.after_step
            where = "before the end of the first step" if after < 0 else f"after step {after}"
            yield "stopped", f"{where}, by {self.stopped.by}"
        for name, said in self.callbacks.items():
            yield name, ", ".join(f"{key} {value}" for key, value in said.items())
        for number, warning in enumerate(self.warnings):
            yield ("" if number else "warnings"), warning

    def _times(self) -> str:
        parts = [f"first step after {_seconds(self.first_step_seconds)}"]
        if self.step_seconds:
            low, high = min(self.step_seconds), max(self.step_seconds)
            spread = f"{_seconds(low)} to {_seconds(high)}"
            parts.append(f"then {_seconds(self.seconds_per_step)} a step ({spread})")
        if self.decode_seconds is not None:
            parts.append(f"{_seconds(self.decode_seconds)} after the last")
        return ", ".join(parts)

    def __repr__(self) -> str:
        return f"<Report of {self._title()}>"

    def __str__(self) -> str:
        return as_text(self._title(), self._lines())

    def _repr_html_(self) -> str:
        return as_html(self._title(), self._lines())


def _span(cut: CutSpan) -> str:
    begins = "from the first step on" if cut.after_step < 0 else f"after step {cut.after_step}"
    return begins if cut.until_step is None else f"{begins}, until after step {cut.until_step}"


def _seconds(value: float | None) -> str:
    assert value is not None
    if value < 1e-3:
        return f"{value * 1e6:.0f} µs"
    return f"{value * 1e3:.3g} ms" if value < 0.9995 else f"{value:.3g} s"
