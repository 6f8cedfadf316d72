"""Call a pipeline from unicb itself, so that the call's beginning and end are known."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Self

from unicb.errors import GenerationCancelled
from unicb.pipelines.tokenizers import explained
from unicb.run.asked import Bound
from unicb.run.busy import Lease
from unicb.run.call import Call, state_after
from unicb.run.handle import Handle
from unicb.run.scope import Scope
from unicb.run.sigint import Sigint
from unicb.run.sources import Source, source_of
from unicb.run.through_blocks import past_blocks


def call_in_scope(
    bound: Bound,
    handle: Handle,
    lease: Lease,
    tensors: list[str],
    sigint: Sigint,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """Call the pipeline, end the run after it, and return the pipeline's result; a generator is
    wrapped, so that the run ends with it.

    Args:
        tensors: names of the tensors to ask the loop for.

    Raises:
        GenerationCancelled: the call was cancelled, before it began or during it.
        UnsupportedPipelineError: the call has texts as prompts, and the pipeline has no tokenizer.
        Exception: whatever the pipeline's call raises.
    """
    opened = _Opened.of(bound, handle, lease, tensors, sigint)
    try:
        with opened.scope.entered(), past_blocks():
            returned = bound.target.pipeline(*args, **kwargs, **opened.source.start())
    except BaseException as error:
        better = explained(bound.target.pipeline, error) if opened.call.is_awaited else None
        opened.end(error)
        if better is not None:
            raise better from error
        raise
    if isinstance(returned, Generator):
        return _Generated(returned, opened)
    opened.end(None)
    return returned


@contextmanager
def block_in_scope(
    bound: Bound, handle: Handle, lease: Lease, tensors: list[str], sigint: Sigint
) -> Iterator[None]:
    """Open a block in which a user's own loop runs like a pipeline's in its call.

    Raises:
        GenerationCancelled: the run was cancelled, before the block or in it.
    """
    opened = _Opened.of(bound, handle, lease, tensors, sigint)
    try:
        with opened.scope.entered():
            opened.source.start()
            yield
    except BaseException as error:
        opened.end(error)
        raise
    opened.end(None)


def _called(bound: Bound, handle: Handle, sigint: Sigint, scope: Scope) -> Call:
    request = handle.calling()
    if request is not None and request.what == "cancel":
        raise GenerationCancelled(-1, None)
    return call_of(bound, handle, sigint, scope)


def call_of(bound: Bound, handle: Handle, sigint: Sigint, scope: Scope | None) -> Call:
    """Return the object that is called at the end of each step; see :class:`Call`."""
    if bound.sharing is None:
        return Call(bound, handle, sigint, scope)
    from unicb.run.shared_call import SharedCall

    return SharedCall(bound, handle, sigint, scope, bound.sharing)


def _tell_ranks(bound: Bound, error: BaseException) -> None:
    """Tell the ranks that share the runs that the call failed with this error."""
    if bound.sharing is not None:
        from unicb.run.shared_call import leave_between

        leave_between(bound.sharing, error, "before the run's first step")


class _Opened:
    """``_Opened`` is a call under way, with the objects that end with it."""

    def __init__(self, scope: Scope, call: Call, source: Source, lease: Lease) -> None:
        self.scope, self.call, self.source, self._lease = scope, call, source, lease

    @classmethod
    def of(
        cls, bound: Bound, handle: Handle, lease: Lease, tensors: list[str], sigint: Sigint
    ) -> Self:
        """Begin a call. Raises the errors of waiting for the pipeline, and of the callbacks'
        preparations."""
        scope = Scope()
        call: Call | None = None
        try:
            lease.wait()
            call = _called(bound, handle, sigint, scope)
            source = source_of(bound, call, handle, scope, tensors)
        except BaseException as error:
            scope.is_open = False
            if call is not None:
                call.end(error)
            else:
                _tell_ranks(bound, error)
                handle.settle(None, state_after(error))
                handle.remove_gates()
            lease.release()
            raise
        return cls(scope, call, source, lease)

    def end(self, error: BaseException | None) -> None:
        """End the call, with this error or without any."""
        if not self.scope.is_open:
            return  # a generator closed again; the handle may belong to another call by now
        self.scope.is_open = False
        try:
            self.call.end(error)
        finally:
            self.source.stop(failed=error is not None)
            self._lease.release()


class _Generated(Generator[Any, Any, Any]):
    """``_Generated`` wraps the generator that a pipeline's call returned, and runs each part of it
    in the scope."""

    def __init__(self, generator: Generator[Any, Any, Any], opened: _Opened) -> None:
        self._generator, self._opened = generator, opened

    def send(self, value: Any) -> Any:
        return self._resumed(partial(self._generator.send, value))

    def throw(self, error: Any, value: Any = None, traceback: Any = None) -> Any:
        return self._resumed(partial(self._generator.throw, error))

    def __del__(self) -> None:
        self.close()

    def _resumed(self, resume: Callable[[], Any]) -> Any:
        try:
            with self._opened.scope.entered():
                return resume()
        except BaseException as error:
            self._opened.end(None if isinstance(error, StopIteration) else error)
            raise
