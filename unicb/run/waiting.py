"""Wait for a call's first step, or for Ctrl-C."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from types import FrameType

from unicb.callback import name_of
from unicb.errors import UnsupportedPipelineError
from unicb.run.asked import Bound
from unicb.run.first_call import FirstCalls, models_to_watch
from unicb.run.handle import Handle, Request
from unicb.run.loop import runs_code_of
from unicb.run.model_hooks import ModelHooks
from unicb.run.scope import Scope
from unicb.run.sigint import Sigint, handler_for


class Waiting:
    """``Waiting`` holds the hooks and the Ctrl-C handler of one call, until they are released.

    Args:
        bound: the pipeline and its callbacks.
        handle: the binding's handle.
        sigint: whether the first Ctrl-C interrupts the run.
        scope: the scope of a call that unicb makes itself; else None.
        hooks: the call's hooks on the pipeline's models.
        first_call: a bound method, held weakly; see :class:`FirstCalls`.

    Raises:
        UnicbError: ``sigint`` is "asked" outside the main thread.
        UnsupportedPipelineError: a callback acts before the first step, and unicb does not know
            which models the loop calls.
    """

    def __init__(
        self,
        bound: Bound,
        handle: Handle,
        sigint: Sigint,
        scope: Scope | None,
        hooks: ModelHooks,
        first_call: Callable[[], None],
    ) -> None:
        self._pipeline_class = type(bound.target.pipeline)
        self._handle, self._scope = handle, scope
        self._first_calls: FirstCalls | None = None
        self._sigint = handler_for(sigint, self._interrupted)
        self.begin()
        # A modular pipeline's loop blocks show by themselves when a step begins.
        watched = bound.target.modular is None
        if watched and (bound.early or bound.target.is_to_be_seen):
            who = name_of(bound.early[0]) if bound.early else "what changes its guidance"
            models = models_to_watch(bound.target, who)
            self._first_calls = FirstCalls(hooks, models, first_call)
        elif watched and bound.sharing is not None:
            # If the models are not known, the ranks agree at the first step's end.
            with suppress(UnsupportedPipelineError):
                models = models_to_watch(bound.target, "what several ranks share")
                self._first_calls = FirstCalls(hooks, models, first_call)

    def begin(self) -> None:
        """Wait for Ctrl-C, when the call or another of its loops begins."""
        if self._sigint is not None:
            self._sigint.install()

    def run_ended(self) -> None:
        """Note that a run of the call has ended, or has failed."""
        if self._sigint is not None:
            self._sigint.remove()
        # A call that unicb makes may have another loop; its end is known.
        if self._scope is None and self._handle.state != "finished":
            self._ignore_first_calls()

    def release(self) -> None:
        """Remove the hooks and the handler. Idempotent."""
        self._ignore_first_calls()
        if self._sigint is not None:
            self._sigint.remove()

    def _ignore_first_calls(self) -> None:
        watching, self._first_calls = self._first_calls, None
        if watching is not None:
            watching.remove()

    def _interrupted(self, frame: FrameType | None) -> bool:
        """Interrupt the run at Ctrl-C if the executing frame is the run's own. Returns whether it
        is."""
        ours = self._scope is not None or runs_code_of(self._pipeline_class, frame)
        return ours and self._handle.ask(Request("interrupt", "Ctrl-C"))
