"""Tie callbacks and a pipeline together, checked before the run: ``bind``."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self

from unicb._bind_checks import AskedRanks, bound_to
from unicb.callback import Callback, PlainFunction
from unicb.errors import UnsupportedPipelineError
from unicb.pipelines.by_hand import Loop
from unicb.pipelines.source import CALLBACK
from unicb.run.asked import Bound
from unicb.run.busy import Holder, Lease, User
from unicb.run.controls import Controls
from unicb.run.handle import Handle, State
from unicb.run.scoped_call import block_in_scope, call_in_scope, call_of
from unicb.run.sigint import OnSigint, Sigint, interrupting
from unicb.run.sources import TENSOR_INPUTS

if TYPE_CHECKING:
    from unicb.run.sharing import Agree

log = logging.getLogger("unicb")

__all__ = ["Binding", "State", "bind"]


def bind(
    pipeline: Any,
    *callbacks: Callback | PlainFunction,
    tensor_inputs: Sequence[str] | None = None,
    on_sigint: OnSigint | None = None,
    group: Any = "auto",
    agree: Agree = "later",
    timeout: float = 60.0,
) -> Binding:
    """Tie callbacks to a pipeline: ``callbacks = bind(pipe, CFGCutoff(0.4))``, and then
    ``callbacks(prompt)`` in place of ``pipe(prompt)``, or ``pipe(prompt, **callbacks)``.

    Args:
        pipeline: a pipeline of a framework whose backend is installed; or a :class:`Loop`, for a
            loop of your own, which runs in a ``with`` block of the binding.
        callbacks: called in this order: :class:`Callback` objects, plain functions in the
            frameworks' signature ``(pipeline, step_index, timestep, callback_kwargs)``, and the
            frameworks' own callback objects and guiders.
        tensor_inputs: names of the tensors that plain functions get; None: every tensor that the
            pipeline offers.
        on_sigint: ``"interrupt"``: the first Ctrl-C during a run interrupts it, the second raises
            KeyboardInterrupt; after the run, Ctrl-C does what it did before. The pipeline has to
            be called in the main thread then. None: Ctrl-C does what it did before, unless a
            callback offers to interrupt (:attr:`Callback.on_sigint`), as a display in a notebook
            does.
        group: the ranks over which the denoiser is spread (docs/devices.md): ``"auto"``: the ranks
            that the denoiser itself names; a group or mesh of the framework that contains this
            process; or None: no ranks. All ranks bind the same callbacks and make the same calls,
            and all stop at the same step, whichever of them is asked to.
        agree: when a stop that only some ranks ask for takes effect: ``"later"``: at the end of the
            next step, so that no step waits for other ranks; ``"now"``: at the end of this step.
        timeout: seconds to wait for the other ranks before RankError is raised.

    Raises:
        BackendNotFoundError, BackendLoadError: no backend for ``pipeline``, or it fails to load.
        UnsupportedPipelineError: the ends of the pipeline's steps cannot be noticed, it does not
            offer a tensor that is asked for, or it cannot do what a callback needs.
        RankError: this process is not in the group.
        TypeError: something among ``callbacks`` is neither a Callback nor callable; ``group`` is
            no group.
        ValueError: ``on_sigint`` or ``agree`` is none of the words above; two callbacks control the
            same thing, or are the same object.
        UnicbError: ``on_sigint`` is given in a thread that is not the main one.

    Example:
        >>> callbacks = bind(pipe, CFGCutoff(0.4), Interrupt(5))
        >>> image = callbacks("a red star", num_inference_steps=10)[0]
        >>> callbacks.state, callbacks.step
        ('interrupted', 5)
    """
    handle = Handle()
    ranks = AskedRanks(group, agree, timeout)
    about = pipeline, callbacks, tensor_inputs, on_sigint, handle.over, ranks
    bound, tensors, sigint = bound_to(*about)
    made = Binding(bound, handle, tensors, sigint)
    if log.isEnabledFor(logging.DEBUG):
        log.debug("bound: %r; its steps are noticed by its %s", made, bound.target.noticed_by)
    return made


_WITH = "write the loop in a block, as in `with bind(Loop(...), ...) as callbacks:`"


class Binding(Controls, Mapping[str, Any]):
    """A binding ties callbacks to a pipeline: it calls the pipeline with them, is a mapping of the
    two keyword arguments that the pipeline's call takes, and is a handle on the run.

    ``callbacks(prompt, ...)`` calls the pipeline and returns what it returns; the run begins and
    ends inside. ``pipe(prompt, ..., **callbacks)`` is the same where the class calls a step-end
    callback. To read the mapping changes nothing. A binding serves one run after another, not two
    at once.

    Example:
        >>> callbacks = bind(pipe, CFGCutoff(0.4))
        >>> image = callbacks("a red star")[0]
        >>> image = pipe("a red star", **callbacks)[0]
        >>> list(callbacks)
        ['callback_on_step_end', 'callback_on_step_end_tensor_inputs']
    """

    def __init__(self, bound: Bound, handle: Handle, tensors: list[str], sigint: Sigint) -> None:
        super().__init__(bound, handle)
        self._tensors, self._sigint = tensors, sigint
        self._used = False
        self._block: AbstractContextManager[None] | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the pipeline with the bound callbacks, and return what the pipeline returns.

        Args:
            args, kwargs: the arguments of the pipeline's call.

        Raises:
            PipelineBusyError: the pipeline, or a scheduler that it shares, has a run under way.
            GenerationCancelled: :meth:`cancel` was called, before this or during the run.
            TypeError: ``callback_on_step_end`` is among ``kwargs``; it belongs into :func:`bind`.
            UnsupportedPipelineError: the call has texts as prompts, and the pipeline has no
                tokenizer.
            Exception: whatever the pipeline's call raises.
        """
        if isinstance(self.pipeline, Loop):
            raise UnsupportedPipelineError(f"a loop of one's own cannot be called: {_WITH}")
        if args and self._bound.target.backend.owns(args[0]):
            raise TypeError(
                "a binding is called in the pipeline's place, with what the pipeline would be "
                "called with, as in callbacks(prompt); as its argument, it is unpacked, as in "
                "pipe(prompt, **callbacks)"
            )
        return self._call(self._lease(User()), args, kwargs)

    def _begin_use(self) -> None:
        self._used = True
        if self._bound.sharing is not None:
            self._bound.sharing.ranks.begin_call()

    def _lease(self, holder: Holder) -> Lease:
        """Take the pipeline for ``holder``, until :meth:`_call` has ended."""
        self._begin_use()
        lease = Lease(self.pipeline, holder)
        lease.take()
        return lease

    def _call(self, lease: Lease, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if given := sorted({CALLBACK, TENSOR_INPUTS} & {*kwargs}):
            lease.release()
            raise TypeError(
                f"callbacks(...) hands over {given[0]} itself; give bind() all of the callbacks"
            )
        about = self._bound, self._handle, lease, self._tensors, self._sigint
        return call_in_scope(*about, args, kwargs)

    def _awaited(self) -> AbstractContextManager[None]:
        """Return a block for waiting while another thread calls the pipeline: in it, Ctrl-C in this
        thread interrupts the run, if a callback offers that."""
        return interrupting(self._sigint, self._handle.ask_interrupt)

    def _check_unpacks(self) -> None:
        """Raise UnsupportedPipelineError if the pipeline's call takes no callback."""
        if not self._bound.target.takes_callback:
            instead = "call the binding in the pipeline's place, as in callbacks(prompt, ...)"
            if isinstance(self.pipeline, Loop):
                instead = _WITH
            raise UnsupportedPipelineError(
                f"a {self._bound.target.name} takes no {CALLBACK} to unpack the binding into: "
                f"{instead}"
            )

    def __getitem__(self, key: str) -> Any:
        self._check_unpacks()
        if key not in (CALLBACK, TENSOR_INPUTS):
            raise KeyError(key)
        if key == TENSOR_INPUTS:
            return self._tensors
        self._begin_use()
        try:
            return call_of(self._bound, self._handle, self._sigint, None)
        except (AttributeError, KeyError) as error:
            # In ``**callbacks``, Python would replace a KeyError by an error of its own.
            raise UnsupportedPipelineError(
                f"cannot call back from {self._bound.target.name}: {type(error).__name__}: {error}"
            ) from error

    def __iter__(self) -> Iterator[str]:
        self._check_unpacks()
        return iter((CALLBACK, TENSOR_INPUTS))

    def __len__(self) -> int:
        return 2

    # A handle on a run is itself and no other, whatever keyword arguments it holds.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        names = ", ".join(repr(callback) for callback, _ in self._bound.callbacks)
        return f"<Binding of {self._bound.target.name}: {names or 'no callbacks'}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a Binding cannot be pickled or copied: it is tied to this process's "
            f"{self._bound.target.name} and its runs. Send the callbacks, and call bind() there"
        )

    def __del__(self) -> None:
        if not getattr(self, "_used", True) and not sys.is_finalizing():
            unpacked = ", or pipe(prompt, **callbacks) with both asterisks"
            warnings.warn(
                f"{self!r} was never called: write callbacks(prompt)"
                f"{unpacked if self._bound.target.takes_callback else ''}",
                RuntimeWarning,
                stacklevel=2,
            )

    def __enter__(self) -> Self:
        if isinstance(self.pipeline, Loop):
            about = self._bound, self._handle, self._lease(User()), self._tensors, self._sigint
            self._block = block_in_scope(*about)
            self._block.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        block, self._block = self._block, None
        try:
            if block is not None:
                block.__exit__(kind, error, traceback)
        finally:
            self._handle.close()
