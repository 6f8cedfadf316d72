"""Faults in whose calls are a run's own, and in what its end puts back."""

from __future__ import annotations

from typing import Any

from mutation import after, instead, mutant

import unicb.binding
from unicb import Binding, UnicbError
from unicb.run.busy import Lease
from unicb.run.call import Call
from unicb.run.calls import Calls
from unicb.run.loop import ScopedLoop, WatchedLoop
from unicb.run.run import Run


def _in_callbacks_too(self: Run) -> bool:
    return not self.ending.begun and self.loop.is_calling()


def _looks_pending(getitem: Any) -> Any:
    def broken(self: Binding, key: str) -> Any:
        self._handle.calling()
        return getitem(self, key)

    return broken


OWNERSHIP = (
    mutant(
        "calls of a run's callbacks are its own",
        "a pipeline that a callback calls is cut with it",
        "nested_pipeline_on_the_same_model model_called_by_a_callback",
        Run,
        "owns_current_call",
        instead(_in_callbacks_too),
        error=UnicbError,
    ),
    mutant(
        "a run's calls are those of its scope, wherever they come from",
        "another thread's calls are cut while it is open",
        "model_called_by_another_thread",
        ScopedLoop,
        "is_calling",
        instead(lambda self: self._scope.is_open),
        error=UnicbError,
    ),
    mutant(
        "a loop is calling as long as it is there",
        "another thread's calls are cut while it is watched",
        "model_called_by_another_thread",
        WatchedLoop,
        "is_calling",
        instead(lambda self: self.is_executing()),
        error=UnicbError,
    ),
    mutant(
        "the call form's end ends no run",
        "as long as somebody has the error, its hooks stay",
        "loop_that_failed_holds_nothing",
        Call,
        "end",
        instead(lambda self, error: None),
    ),
    mutant(
        "the call form returns nothing",
        "the picture is lost",
        "call_form_is_the_call",
        unicb.binding,
        "call_in_scope",
        after(lambda returned, *_: None),
    ),
    mutant(
        "two runs on one pipeline",
        "nobody notices that it is in use",
        "one_run_at_a_time_on_one_pipeline",
        Lease,
        "take",
        instead(lambda self: None),
    ),
    mutant(
        "a pipeline stays in use",
        "the second call of a binding is refused",
        "call_form_is_the_call reading_a_binding_changes_nothing",
        Lease,
        "release",
        instead(lambda self: None),
        error=UnicbError,
    ),
    mutant(
        "reading is calling",
        "a finished run is pending once somebody has looked at the keywords",
        "reading_a_binding_changes_nothing",
        Binding,
        "__getitem__",
        _looks_pending,
    ),
    mutant(
        "keywords are kept by the handle",
        "what waits for their call waits for ever",
        "reading_a_binding_changes_nothing",
        Calls,
        "add",
        after(lambda number, self, call: self.__dict__.setdefault("kept", []).append(call) or 1),
    ),
)
