"""A call of a pipeline that unicb makes itself: it begins and ends here."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from typing import Any

from unicb.errors import GenerationCancelled
from unicb.pipelines.tokenizers import explained
from unicb.run.asked import Bound
from unicb.run.busy import Lease
from unicb.run.call import Call, state_after
from unicb.run.handle import Handle
from unicb.run.scope import Scope


def call_in_scope(
    bound: Bound,
    handle: Handle,
    lease: Lease,
    sigint: bool,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """Call the pipeline, and end what the call has begun. Returns what it returns; where that is a
    generator, one that does the same.

    Raises:
        GenerationCancelled: the call was cancelled, before it or during it.
        UnsupportedPipelineError: it was given texts, and the pipeline has no tokenizer.
        Exception: whatever the pipeline's call raises.
    """
    scope = Scope()
    try:
        lease.wait()
        call = _called(bound, handle, sigint, scope)
    except BaseException as error:
        handle.settle(None, state_after(error))
        handle.remove_gates()
        lease.release()
        raise
    try:
        with scope.entered():
            returned = bound.target.pipeline(*args, **kwargs, callback_on_step_end=call)
    except BaseException as error:
        better = explained(bound.target.pipeline, error) if call.is_awaited else None
        _end(call, scope, lease, error)
        if better is not None:
            raise better from error
        raise
    if isinstance(returned, Generator):
        return _Generated(returned, scope, call, lease)
    _end(call, scope, lease, None)
    return returned


def _called(bound: Bound, handle: Handle, sigint: bool, scope: Scope) -> Call:
    request = handle.calling()
    if request is not None and request.what == "cancel":
        raise GenerationCancelled(-1, None)
    return Call(bound, handle, sigint, scope)


class _Generated(Generator[Any, Any, Any]):
    """The generator that a pipeline's call has returned, each of whose parts is in the scope."""

    def __init__(
        self, generator: Generator[Any, Any, Any], scope: Scope, call: Call, lease: Lease
    ) -> None:
        self._generator, self._scope = generator, scope
        self._call, self._lease = call, lease

    def send(self, value: Any) -> Any:
        return self._resumed(partial(self._generator.send, value))

    def throw(self, error: Any, value: Any = None, traceback: Any = None) -> Any:
        return self._resumed(partial(self._generator.throw, error))

    def __del__(self) -> None:
        self.close()

    def _resumed(self, resume: Callable[[], Any]) -> Any:
        try:
            with self._scope.entered():
                return resume()
        except BaseException as error:
            ended = None if isinstance(error, StopIteration) else error
            _end(self._call, self._scope, self._lease, ended)
            raise


def _end(call: Call, scope: Scope, lease: Lease, error: BaseException | None) -> None:
    if not scope.is_open:
        return  # a generator that is closed once more; the handle may be another call's by now
    scope.is_open = False
    try:
        call.end(error)
    finally:
        lease.release()
