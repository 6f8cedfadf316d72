"""Define what a backend has to provide, and find the right one.

A backend is an object registered under an entry point of the group ``unicb.backends``. Finding
one imports no framework: a backend answers :meth:`Backend.owns` from the names of the pipeline's
base classes, and imports its framework only when its operations are first used.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

import numpy as np
import numpy.typing as npt

from unicb.call_hooks import hook_call
from unicb.errors import BackendLoadError, BackendNotFoundError, UnsupportedPipelineError
from unicb.method_hooks import hook_method
from unicb.ops import Tensor, TensorOps

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

#: Called instead of a hooked module: ``around(call, args, kwargs)``, where ``call`` is the
#: module's.
Around: TypeAlias = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]

T = TypeVar("T")

ENTRY_POINT_GROUP = "unicb.backends"

_HOOKS = ("hook", "is_built_in", "reset_caches")
_RANKS = ("rank", "ranks", "agree", "claim")
_VERBS = ("owns", "is_tensor", "in_dtype", "aside", "fork_rng", *_HOOKS, *_RANKS, "versions")
_PARTS = ("name", "install", "ops", *_VERBS)


#: By how much the numbers of the runs of two calls differ.
_RUNS = 64


class Ranks:
    """The processes, or ranks, that share a run: its denoiser is spread over them.

    Attributes:
        all: the framework's numbers of these ranks. The first rank shows and writes whatever is to
            be shown or written once.
        own: the number of this process, one of ``all``.
        group: the group as :meth:`Backend.agree` takes it.
        left: what this rank said last as it left a run, for unicb's own use; None once all ranks
            have heard that.
    """

    def __init__(self, all_ranks: Sequence[int], own: int, group: Any) -> None:
        self.all, self.own, self.group = tuple(all_ranks), own, group
        self.left: Any = None
        self._next = 0

    def begin_call(self) -> None:
        """Count a call, even if it fails. If it fails on one rank only, the numbers of the next
        runs differ, so that no rank takes another run for its own. How many runs a call has had on
        each rank makes no difference to the next call."""
        self._next += _RUNS - self._next % _RUNS

    def begin_run(self) -> int:
        """Return the number of a new run; it grows until :meth:`count_anew`."""
        self._next += 1
        return self._next - 1

    def catch_up(self, number: int) -> None:
        """Count on from this number of a run, if this rank's is lower: all ranks have heard of that
        run."""
        self._next = max(self._next, number + 1)

    def count_anew(self) -> None:
        """Count from the start again, on every rank, and forget what was said: the connection is
        lost."""
        self._next, self.left = 0, None


class Backend(ABC):
    """A backend is one framework, as unicb sees it. Derive from this class, and override what
    differs.

    Example:
        >>> from unicb.backend import backend_for
        >>> backend_for(pipe).name
        'numpy'
    """

    #: The name of the entry point, e.g. ``"torch"``.
    name: str
    #: What to install when the framework is missing, e.g. ``"pip install 'unicb[torch]'"``.
    install: str
    #: The top-level package that has the framework's pipelines.
    package: str = ""
    #: The module with its pipelines, models and schedulers, where that is not :attr:`package`.
    library: str = ""
    #: Names of base classes in :attr:`package`, of pipelines and of models.
    bases: Sequence[str] = ("DiffusionPipeline", "ModularPipeline", "ModelMixin")
    #: The distributions that the backend needs, for reports.
    distributions: Sequence[str] = ()

    @property
    @abstractmethod
    def ops(self) -> TensorOps:
        """Return the tensor operations. The first use imports the framework (ImportError if it
        cannot)."""

    @property
    @abstractmethod
    def tensor_type(self) -> type:
        """Return the framework's type of tensors. The first use may import the framework."""

    def owns(self, pipeline: object) -> bool:
        """Return whether ``pipeline`` is one of this framework's pipelines, or one of its models.
        Must import nothing to answer.

        Unless overridden, True if one of its base classes is named in :attr:`bases` and defined in
        :attr:`package`.
        """
        return any(has_base(pipeline, self.package, name) for name in self.bases)

    def is_tensor(self, value: object) -> bool:
        """Return whether ``value`` is one of this framework's tensors."""
        return isinstance(value, self.tensor_type)

    def in_dtype(self, x: Tensor, dtype: Any) -> Tensor:
        """Return the floating-point tensor ``x`` in another floating dtype, on the same device,
        without waiting for the device.

        Unless overridden, returns ``x.astype(dtype)``, as in numpy and JAX.

        Args:
            x: a floating-point tensor.
            dtype: the ``dtype`` of one of the framework's tensors, or ``"float32"``.
        """
        return x.astype(dtype)

    def aside(self, work: Callable[..., T], tensors: Sequence[Tensor]) -> Callable[[], T]:
        """Do ``work(ops, *tensors)`` without making the pipeline's loop wait, if the framework can.

        Returns a function that returns the result of ``work``, or raises its error; it is called
        once or never, in any thread. ``work`` sees the tensors as they are now, whatever the loop
        does to them later; it only reads them, and has its result on the host before it returns. It
        may be handed copies of another type, with the operations for that type.

        Unless overridden, ``work`` is called at once.
        """
        return at_once(work, self.ops, tensors)

    def fork_rng(self) -> AbstractContextManager[None]:
        """Open a block that records no gradients and leaves the framework's global random numbers
        as if it had not run.

        Unless overridden, the block does nothing: right for frameworks that compute gradients only
        on request and have no global random numbers.
        """
        return nullcontext()

    def hook(self, module: Any, around: Around) -> Callable[[], None]:
        """Let ``around(call, args, kwargs)`` answer every call of ``module``; ``call`` is the
        module's own.

        Uses the framework's own hook registry, if there is one and models hooked there can be
        compiled. Returns a function that removes the hook and leaves the module as it was before.
        Hooks on one module nest, the latest outermost, and may be removed in any order. Both may
        happen in any thread, also while the module is being called.

        While hooks are on, ``copy.deepcopy`` of the module, or of an object that contains it, makes
        copies without the hooks: see :func:`unicb.plain_copies.make_plain_copies`.

        Unless overridden, the module's ``forward`` is replaced: for frameworks without a registry,
        whose modules run ``forward`` when they are called. Objects that have no ``forward`` or keep
        no attributes, and modules that are compiled by the name of a method, are hooked at their
        call: see :func:`unicb.call_hooks.hook_call`.

        Raises:
            UnsupportedPipelineError: the module cannot be hooked; the message says why.
        """
        if hasattr(module, "__dict__") and callable(getattr(module, "forward", None)):
            return hook_method(module, "forward", around)
        return hook_call(module, around)

    def is_built_in(self, part: Any, models: Sequence[Any]) -> bool:
        """Return whether ``part`` is compiled into one of the models, so that calls of that model
        ignore a hook on the part or a change of its attributes.

        Unless overridden, returns False.
        """
        return False

    def reset_caches(self, module: Any, *, rehearse: bool = False) -> None:  # noqa: B027
        """Make the framework's own hooks on ``module``, and inside it, forget what they keep of
        earlier calls, because the next call will have fewer rows. With ``rehearse``, only raise the
        error.

        Unless overridden, does nothing: for frameworks without such hooks.

        Raises:
            UnsupportedPipelineError: one of the hooks needs the rows that are left out.
        """

    def devices(self) -> Sequence[str]:
        """Return the devices that the framework finds here, for reports: ``"cpu"``, ``"cuda:0"``.

        Unless overridden, ``("cpu",)``.
        """
        return ("cpu",)

    def rank(self) -> tuple[int, int]:
        """Return the number of this process among those started together, from 0, and how many
        there are, whether or not they share runs. Must import nothing to answer.

        Unless overridden, ``(0, 1)``.
        """
        return 0, 1

    def ranks(self, group: Any, models: Sequence[Any], timeout: float) -> Ranks | None:
        """Return the ranks that share a denoiser's runs; None if this process runs alone. One group
        always gives the same object. Does not wait for other ranks.

        Unless overridden, returns None: for frameworks without groups of processes.

        Args:
            group: a group of the framework; or ``"auto"``: the ranks that the denoiser says it is
                spread over.
            models: the denoisers, and the models that are called along with them.
            timeout: seconds after which :meth:`agree` gives up.

        Raises:
            RankError: this process is not in the group.
            TypeError: ``group`` is no group of the framework.
            UnsupportedPipelineError: the framework has no groups, or a model does not say clearly
                which ranks it is spread over.
        """
        if isinstance(group, str) and group == "auto":
            return None
        raise UnsupportedPipelineError(
            f"backend {self.name!r} knows no groups of ranks; leave out group={group!r}"
        )

    def agree(
        self, word: npt.NDArray[np.uint8], step: int, group: Any
    ) -> Callable[[float], Sequence[npt.NDArray[Any]]]:
        """Send a word to all ranks of a group, and receive theirs. Every rank calls this, each time
        with a word of the same length. The call itself waits for no rank and no device.

        Unless overridden, the group is this process alone.

        Args:
            word: this rank's word: ``numpy.uint8 [n]``.
            step: index of the step that has ended, for messages; -1 before the first step.
            group: the attribute ``group`` of :class:`Ranks`.

        Returns:
            A function that takes the most seconds to wait, and returns the words of all ranks, in
            their order: arrays ``[n]`` of integers in 0..255. Call it once or never. If the ranks
            have not met yet, this function may be what sends the word.

        Raises:
            RankError: the group no longer exists. From the function: a rank has ended, or has not
                sent its word in time.
        """
        return lambda timeout: [word]

    def claim(self, name: str) -> int:
        """Claim a name, such as a file's, for this process. Returns the number of the process that
        claimed it first, among those started together.

        Unless overridden, returns this process's own number.
        """
        return self.rank()[0]

    def versions(self) -> Mapping[str, str]:
        """Return the names and versions of the packages that the backend needs, for reports."""
        from importlib.metadata import version

        return {name: version(name) for name in self.distributions}


def at_once(work: Callable[..., T], ops: TensorOps, tensors: Sequence[Tensor]) -> Callable[[], T]:
    """Do the work now, and return a function that returns the result: the plain
    :meth:`Backend.aside`."""
    result = work(ops, *tensors)
    return lambda: result


def has_base(pipeline: object, package: str, class_name: str) -> bool:
    """Return whether some base class of ``pipeline`` is called ``class_name`` and lives in
    ``package``. Imports nothing to answer."""
    return any(
        base.__name__ == class_name and base.__module__.partition(".")[0] == package
        for base in type(pipeline).__mro__
    )


@cache
def _entry_points() -> Mapping[str, EntryPoint]:
    # To import this takes a third of the time of `from unicb import bind`; frameworks need it, too.
    from importlib.metadata import entry_points

    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}


def backend_names() -> tuple[str, ...]:
    """Return the names of the installed backends, sorted. Loads none of them."""
    return tuple(sorted(_entry_points()))


@cache
def _load_entry_point(name: str) -> Backend:
    point = _entry_points()[name]
    try:
        backend = point.load()
    except Exception as error:
        raise BackendLoadError(
            f"backend {name!r} could not be loaded from its entry point {point.value!r}: {error}"
        ) from error
    if missing := [part for part in _PARTS if not _has(backend, part)]:
        raise BackendLoadError(
            f"backend {name!r}: {point.value!r} is a {type(backend).__name__} without "
            f"{', '.join(missing)}; see unicb.Backend for what a backend has to provide"
        )
    return cast(Backend, backend)


def _has(backend: object, part: str) -> bool:
    """Return whether the backend has an attribute of this name, without reading it: to read ``ops``
    imports the framework."""
    try:
        inspect.getattr_static(backend, part)
    except AttributeError:
        return False
    return True


def load_backend(name: str) -> Backend:
    """Return the backend called ``name``, whether its framework can be imported or not.

    Raises:
        BackendNotFoundError: no backend of this name is installed; the message names those that
            are.
        BackendLoadError: the backend itself fails to load; the cause is chained.
    """
    if name not in _entry_points():
        raise BackendNotFoundError(
            f"no backend is called {name!r}; installed: {', '.join(backend_names()) or 'none'}"
        )
    return _load_entry_point(name)


def get_backend(name: str) -> Backend:
    """Return the backend called ``name``, with its framework imported.

    Raises:
        BackendNotFoundError: no backend of this name is installed; the message names those that
            are.
        BackendLoadError: the backend or its framework fails to load; the cause is chained.
    """
    return _with_framework(load_backend(name))


def library_of(backend: Backend) -> str:
    """Return the name of the module with the framework's pipelines; empty if the backend names
    none."""
    return str(getattr(backend, "library", "") or getattr(backend, "package", ""))


def _with_framework(backend: Backend) -> Backend:
    try:
        _ = backend.ops
    except Exception as error:
        raise BackendLoadError(
            f"backend {backend.name!r} is installed, but its framework fails to load "
            f"({type(error).__name__}: {error}); try: {backend.install}"
        ) from error
    return backend


def backend_for(pipeline: object) -> Backend:
    """Return the backend that owns ``pipeline``, with its framework imported.

    A backend that fails to load is passed over as long as another one owns the pipeline; if none
    does, its failure is the cause of the error.

    Raises:
        BackendNotFoundError: no backend owns the object, or two do.
        BackendLoadError: the framework of the owning backend fails to load; or no backend owns the
            object, and one that might failed to load.
    """
    is_loop = hasattr(type(pipeline), "_unicb_framework_of")
    if is_loop:  # the user's own loop has the backend of its denoiser
        pipeline = cast(Any, pipeline)._unicb_framework_of
    owners: list[Backend] = []
    failure: BackendLoadError | None = None
    for name in backend_names():
        try:
            backend = _load_entry_point(name)
        except BackendLoadError as error:
            failure = failure or error
            continue
        try:
            if backend.owns(pipeline):
                owners.append(backend)
        except Exception as error:
            raise BackendLoadError(
                f"backend {name!r} failed when asked whether it owns a "
                f"{type(pipeline).__qualname__}: {error}"
            ) from error
    if len(owners) == 1:
        return _with_framework(owners[0])
    if owners:
        names = " and ".join(repr(backend.name) for backend in owners)
        raise BackendNotFoundError(
            f"backends {names} both claim {_describe(pipeline)}; uninstall one of them"
        )
    if failure is not None:
        raise BackendLoadError(
            f"no backend that loads owns {_describe(pipeline)}, and one did not load: {failure}"
        ) from failure
    if is_loop:
        raise BackendNotFoundError(
            f"{_describe(pipeline)} is the denoiser of a Loop, which tells its framework, and no "
            f"installed backend knows it (installed: {', '.join(backend_names()) or 'none'}): its "
            "class has to derive from a model class of a library that a backend is for, such as "
            "diffusers.ModelMixin"
        )
    raise BackendNotFoundError(
        f"{_describe(pipeline)} is no pipeline that an installed backend knows "
        f"(installed: {', '.join(backend_names()) or 'none'}). bind() takes a pipeline object, "
        "such as the result of a pipeline class's from_pretrained(); for another framework, "
        "install its backend"
    )


def _describe(pipeline: object) -> str:
    kind = type(pipeline)
    return f"the {kind.__qualname__} object (from {kind.__module__})"
