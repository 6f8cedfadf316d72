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
    """``Waiting`` has the hooks and a handler for one call, until they are released.

    Args:
        bound: the pipeline and its callbacks.
        handle: the binding's.
        sigint: whether the first Ctrl-C interrupts the run.
        scope: of a call that unicb makes itself; else None.
        hooks: on the pipeline's models.
        first_call: a bound method, not kept alive; see :class:`FirstCalls`.

    Raises:
        UnicbError: ``sigint`` in another thread than the main one.
        UnsupportedPipelineError: a callback acts before the first step, and which models the loop
            calls is not known.
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
        # The loop blocks of a modular pipeline tell themselves of a step that begins.
        watched = bound.target.modular is None
        if watched and (bound.early or bound.target.is_to_be_seen):
            who = name_of(bound.early[0]) if bound.early else "what changes its guidance"
            models = models_to_watch(bound.target, who)
            self._first_calls = FirstCalls(hooks, models, first_call)
        elif watched and bound.sharing is not None:
            # Where they are not known, the ranks agree at the first step's end.
            with suppress(UnsupportedPipelineError):
                models = models_to_watch(bound.target, "what several ranks share")
                self._first_calls = FirstCalls(hooks, models, first_call)

    def begin(self) -> None:
        """Wait for Ctrl-C: the call begins, or another of its loops."""
        if self._sigint is not None:
            self._sigint.install()

    def run_ended(self) -> None:
        """Note that a run of the call has ended, or has failed."""
        if self._sigint is not None:
            self._sigint.remove()
        # A call of ours may have another loop, and tells when it ends.
        if self._scope is None and self._handle.state != "finished":
            self._ignore_first_calls()

    def release(self) -> None:
        """Wait for nothing any more. Idempotent."""
        self._ignore_first_calls()
        if self._sigint is not None:
            self._sigint.remove()

    def _ignore_first_calls(self) -> None:
        watching, self._first_calls = self._first_calls, None
        if watching is not None:
            watching.remove()

    def _interrupted(self, frame: FrameType | None) -> bool:
        """Interrupt the run at Ctrl-C, while this frame is executed. Returns whether it is the
        run's own."""
        ours = self._scope is not None or runs_code_of(self._pipeline_class, frame)
        return ours and self._handle.ask(Request("interrupt", "Ctrl-C"))
