"""Faults in what is noted of a run."""

from __future__ import annotations

from mutation import after, instead, mutant

from unicb.guidance._models import Models
from unicb.report import Report
from unicb.run.handle import Handle
from unicb.run.record import Record, RowCount

REPORT = (
    mutant(
        "the rows of a cut are not noted",
        "a report says that nothing was saved",
        "report_tells_the_rows_saved",
        Models,
        "note",
        instead(lambda self, *args, **words: None),
    ),
    mutant(
        "a cut counts for all steps",
        "a report says of the whole run what was saved after the cut",
        "report_tells_the_rows_saved",
        RowCount,
        "saved",
        instead(lambda self, steps: 1 - self.computed / self.whole if self.whole else 0.0),
    ),
    mutant(
        "callbacks are not asked at the end",
        "a report has no previews",
        "report_tells_the_rows_saved",
        Record,
        "close",
        instead(lambda self: setattr(self, "_notes", {})),
        error=KeyError,
    ),
    mutant(
        "who stops is not noted",
        "a report says of a stopped run that nobody did",
        "report_tells_who_stopped",
        Record,
        "stopped",
        instead(lambda self, by, after_step: None),
    ),
    mutant(
        "a report counts from 1",
        "it names the step after the one that was the last",
        "report_tells_who_stopped",
        Report,
        "of",
        lambda of: classmethod(
            lambda cls, record, outcome: after(_one_later)(of.__func__)(cls, record, outcome)
        ),
    ),
    mutant(
        "the first record stays",
        "a report is about the binding's first run",
        "report_tells_who_stopped",
        Handle,
        "begin",
        after(lambda run, self, make: _keep_first(self, run)),
    ),
)


def _one_later(report: Report, *_: object) -> Report:
    if report.stopped is not None:
        later = report.stopped._replace(after_step=report.stopped.after_step + 1)
        object.__setattr__(report, "stopped", later)
    return report


def _keep_first(handle: Handle, run: object) -> object:
    first = vars(handle).setdefault("_first_record", handle.record)
    handle.record = first
    return run
