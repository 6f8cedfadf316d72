"""The first call of a model in a pipeline's loop: where a run can begin before its first step ends.

A pipeline calls its callbacks at the end of steps only. But its loop cannot get through the first
step without its denoiser, and the frame that calls it was given our callback.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, TypeAlias

from unicb.backend import Around, Backend
from unicb.errors import UnsupportedPipelineError
from unicb.guidance._inference import facts_of_class
from unicb.pipelines import PipelineFacts
from unicb.run.loop import FrameId, runs_in_thread
from unicb.run.stopping import models_of

#: Hooks that were put on models: the model, and what answers its calls.
Hooked: TypeAlias = Sequence[tuple[Any, Around]]


class NotingHooks:
    """A backend that notes the hooks that are put through it, until they are taken away again.

    A hook does not answer a call that is under way when it is put. Who has it put can.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.hooked: list[tuple[Any, Around]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def hook(self, module: Any, around: Around) -> Callable[[], None]:
        noted = (module, around)
        remove = self._backend.hook(module, around)
        self.hooked.append(noted)

        def forget() -> None:
            self.hooked[:] = [other for other in self.hooked if other is not noted]
            remove()

        return forget


class FirstCalls:
    """Watches a pipeline's models until the call that was given ``callback`` is over.

    Args:
        backend: of the pipeline's framework.
        models: the pipeline's.
        callback: an object of which only the call, and who makes it, have a reference: with it,
            the call ends, however it does.
        begin: a bound method, not kept alive. It is called before each call of a model, and
            returns the hooks that it has put on the models.
        ended: a bound method, not kept alive. It is called when the call is over.
    """

    def __init__(
        self,
        backend: Backend,
        models: Sequence[Any],
        callback: Callable[..., Any],
        begin: Callable[[], Hooked],
        ended: Callable[[], None],
    ) -> None:
        self._begin, self._ended = weakref.WeakMethod(begin), weakref.WeakMethod(ended)
        with ExitStack() as undo:
            for model in models:
                undo.callback(backend.hook(model, partial(self._around, model)))
            self._undo = undo.pop_all()
        self._callback = weakref.ref(callback, self._call_ended)
        self._outputs: weakref.ref[Any] | None = None

    def watch_end(self, outputs: Any, frame_id: FrameId) -> None:
        """A run of the call has ended its last step, with ``outputs`` handed to its loop; another
        loop may follow. Where the loop's frame ends with them, so does the call."""
        thread_id = threading.get_ident()

        def let_go(_: object) -> None:
            if not runs_in_thread(frame_id, thread_id):
                self.remove()

        self._outputs = weakref.ref(outputs, let_go)

    def remove(self) -> None:
        """Watch no longer. Idempotent."""
        self._undo.close()

    def _around(
        self, model: Any, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        begin = self._begin()
        for hooked, around in () if begin is None else begin():
            if hooked is model:
                call = partial(_through, around, call)
        return call(*args, **kwargs)

    def _call_ended(self, _: object) -> None:
        self.remove()
        if (ended := self._ended()) is not None:
            ended()


def _through(around: Around, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return around(call, args, kwargs)


def models_to_watch(pipeline: Any, facts: PipelineFacts | None, owner: str) -> list[Any]:
    """The models whose first call begins a run; ``owner``: who needs that, for messages.

    Raises:
        UnsupportedPipelineError: they are not known.
    """
    try:
        models = models_of(pipeline, facts) or models_of(
            pipeline, facts_of_class(type(pipeline), facts)
        )
    except UnsupportedPipelineError as error:
        raise _unknown(pipeline, owner) from error
    if not models:
        raise _unknown(pipeline, owner)
    return models


def _unknown(pipeline: Any, owner: str) -> UnsupportedPipelineError:
    return UnsupportedPipelineError(
        f"{owner} acts before the first step, when {type(pipeline).__name__} calls its denoiser, "
        "and which of its models that is is not known; `unicb_facts` on the class says it (see "
        "unicb.PipelineFacts)"
    )
