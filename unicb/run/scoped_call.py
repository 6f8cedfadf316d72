"""Make a call of a pipeline here, where it begins and ends."""

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
    """Call the pipeline, and end what the call has begun. Returns what it returns; where that is a
    generator, one that does the same.

    Args:
        tensors: names of those that the loop is asked for.

    Raises:
        GenerationCancelled: the call was cancelled, before it or during it.
        UnsupportedPipelineError: it was given texts, and the pipeline has no tokenizer.
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
    """Run a loop of one's own in the block, as a pipeline's runs in its call.

    Raises:
        GenerationCancelled: it was cancelled, before it or during it.
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
    """Return what hears of the ends of steps; see :class:`Call`."""
    if bound.sharing is None:
        return Call(bound, handle, sigint, scope)
    from unicb.run.shared_call import SharedCall

    return SharedCall(bound, handle, sigint, scope, bound.sharing)


def _tell_ranks(bound: Bound, error: BaseException) -> None:
    """Have those that share the runs know that there is no call, for this error."""
    if bound.sharing is not None:
        from unicb.run.shared_call import leave_between

        leave_between(bound.sharing, error, "before the run's first step")


class _Opened:
    """``_Opened`` is a call under way, and what is to be ended with it."""

    def __init__(self, scope: Scope, call: Call, source: Source, lease: Lease) -> None:
        self.scope, self.call, self.source, self._lease = scope, call, source, lease

    @classmethod
    def of(
        cls, bound: Bound, handle: Handle, lease: Lease, tensors: list[str], sigint: Sigint
    ) -> Self:
        """Begin a call. Raises what waiting for others, or what the callbacks need, raises."""
        scope = Scope()
        call: Call | None = None
        try:
            lease.wait()
            call = _called(bound, handle, sigint, scope)
            source = source_of(bound.target, call, handle, scope, tensors)
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
            return  # a generator that is closed once more; the handle may be another call's by now
        self.scope.is_open = False
        try:
            self.call.end(error)
        finally:
            self.source.stop(failed=error is not None)
            self._lease.release()


class _Generated(Generator[Any, Any, Any]):
    """``_Generated`` is the generator that a pipeline's call has returned, each of whose parts is
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
