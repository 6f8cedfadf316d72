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

#: Called in place of a hooked module, with the module's own call, its arguments, its keywords.
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
        all: their numbers, as their framework counts them; the first of them shows and writes what
            is to be shown or written once.
        own: that of this process, which is one of them.
        group: what :meth:`Backend.agree` takes.
        left: what this rank said last as it left a run, for unicb's own use; None once all have
            heard that.
    """

    def __init__(self, all_ranks: Sequence[int], own: int, group: Any) -> None:
        self.all, self.own, self.group = tuple(all_ranks), own, group
        self.left: Any = None
        self._next = 0

    def begin_call(self) -> None:
        """Count a call, whatever becomes of it. Where one fails on one rank and no other hears of
        that, the numbers of the next runs differ: no rank takes another's run for its own. How many
        runs a call has had on each rank makes no difference to the next."""
        self._next += _RUNS - self._next % _RUNS

    def begin_run(self) -> int:
        """Return the number of a further run; it grows until :meth:`count_anew`."""
        self._next += 1
        return self._next - 1

    def catch_up(self, number: int) -> None:
        """Count on from this number of a run, where this rank has not come so far: all ranks have
        heard of it."""
        self._next = max(self._next, number + 1)

    def count_anew(self) -> None:
        """The connection is lost: what was said in it is forgotten, and the next run is the first
        again, on each rank."""
        self._next, self.left = 0, None


class Backend(ABC):
    """A backend is one framework, as unicb sees it. A backend derives from this, and writes what
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
    #: Names of base classes in that package, of pipelines and of models.
    bases: Sequence[str] = ("DiffusionPipeline", "ModularPipeline", "ModelMixin")
    #: The distributions that the backend stands on, for reports.
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

        Unless overridden, it is one if a base class of it is among :attr:`bases`, and lives in
        :attr:`package`.
        """
        return any(has_base(pipeline, self.package, name) for name in self.bases)

    def is_tensor(self, value: object) -> bool:
        """Return whether ``value`` is one of this framework's tensors."""
        return isinstance(value, self.tensor_type)

    def in_dtype(self, x: Tensor, dtype: Any) -> Tensor:
        """Return the floating-point tensor ``x`` in another floating dtype, on its device; nothing
        waits for that.

        Unless overridden, ``x.astype(dtype)``, as in numpy and JAX.

        Args:
            x: the tensor.
            dtype: the ``dtype`` of one of the framework's tensors, or ``"float32"``.
        """
        return x.astype(dtype)

    def aside(self, work: Callable[..., T], tensors: Sequence[Tensor]) -> Callable[[], T]:
        """Have ``work(ops, *tensors)`` done without the pipeline's loop waiting for it, if it can.

        Returns a function that gives the result, or raises what ``work`` raised. It is called once
        or never, and in any thread. ``work`` sees the tensors as they are now, whatever the loop
        does to them; it reads them, and has its result on the host before it returns. What it is
        handed may be copies, also of another kind, with the operations for that kind.

        Unless overridden, ``work`` is called at once.
        """
        return at_once(work, self.ops, tensors)

    def fork_rng(self) -> AbstractContextManager[None]:
        """Open a block that records no gradients, and after which the framework's global random
        numbers go on as if it had not been.

        Unless overridden, the block is nothing: for frameworks where gradients are asked for, and
        that have no global random numbers.
        """
        return nullcontext()

    def hook(self, module: Any, around: Around) -> Callable[[], None]:
        """Have ``around(call, args, kwargs)`` answer every call of ``module``; ``call`` is what
        the module would have run.

        Goes through the framework's own hook registry, where there is one and a model that is
        hooked there can be compiled. Returns a function that takes the hook away and leaves the
        module as it was found. Hooks on one module nest, the latest outermost, and may be taken
        away in any order. Both may happen in any thread, also while the module is being called.

        Meanwhile ``copy.deepcopy`` of the module, or of what contains it, is a copy of the module
        as it would be without the hooks: see :func:`unicb.plain_copies.make_plain_copies`.

        Unless overridden, the module's own ``forward`` is replaced: for frameworks without a
        registry, whose modules run that when they are called. What has none, or keeps no
        attributes, is hooked by its call, as is what is compiled by the name of its method: see
        :func:`unicb.call_hooks.hook_call`.

        Raises:
            UnsupportedPipelineError: the module cannot be hooked; the message says why.
        """
        if hasattr(module, "__dict__") and callable(getattr(module, "forward", None)):
            return hook_method(module, "forward", around)
        return hook_call(module, around)

    def is_built_in(self, part: Any, models: Sequence[Any]) -> bool:
        """Return whether ``part`` is inside one of the models, compiled in such a way that a call
        of that model ignores a hook on the part, or a change of its attributes.

        Unless overridden, it is not.
        """
        return False

    def reset_caches(self, module: Any, *, rehearse: bool = False) -> None:  # noqa: B027
        """Have the framework's own hooks on ``module`` and inside it forget what they keep of
        earlier calls, because the next will have fewer rows. With ``rehearse``, nothing is
        forgotten, but the error is raised all the same.

        Unless overridden, there is nothing to do: for frameworks without such hooks.

        Raises:
            UnsupportedPipelineError: one of them cannot do without the rows that are left out.
        """

    def devices(self) -> Sequence[str]:
        """Return the devices that the framework finds here, for reports: ``"cpu"``, ``"cuda:0"``.

        Unless overridden, the host alone.
        """
        return ("cpu",)

    def rank(self) -> tuple[int, int]:
        """Return the number of this process among those that were started together, from 0, and how
        many there are; whatever they share. Must import nothing to answer.

        Unless overridden, 0 of 1.
        """
        return 0, 1

    def ranks(self, group: Any, models: Sequence[Any], timeout: float) -> Ranks | None:
        """Return the ranks that share the runs of a denoiser; None where this process is alone. For
        one group, it is always the same object. Nobody is waited for.

        Unless overridden, there are none: for frameworks without groups of processes.

        Args:
            group: the framework's own; or ``"auto"``: those that the denoiser itself says it is
                spread over.
            models: the denoisers, and those that are called with them.
            timeout: seconds after which :meth:`agree` is to give up.

        Raises:
            RankError: this process is not in the group.
            TypeError: it is no group.
            UnsupportedPipelineError: the framework has none, or what a model says is not enough.
        """
        if isinstance(group, str) and group == "auto":
            return None
        raise UnsupportedPipelineError(
            f"backend {self.name!r} knows no groups of ranks; leave out group={group!r}"
        )

    def agree(
        self, word: npt.NDArray[np.uint8], step: int, group: Any
    ) -> Callable[[float], Sequence[npt.NDArray[Any]]]:
        """Send a word to a group's ranks, and get theirs. Called by each of them, and each time by
        all with words of one length; nobody is waited for, and no device is.

        Unless overridden, there is nobody but this process.

        Args:
            word: ``numpy.uint8 [n]``.
            step: index of the step that has ended, for messages; -1 before the first.
            group: as in :class:`Ranks`.

        Returns:
            A function that waits for so many seconds at most and returns the words of all ranks, in
            their order: arrays ``[n]`` of numbers in 0..255. To be called once or never. Where the
            ranks have not met yet, it may be what sends the word.

        Raises:
            RankError: the group is not there any more. From the function: a rank is gone, or has
                not come in time.
        """
        return lambda timeout: [word]

    def claim(self, name: str) -> int:
        """Claim a name, such as a file's, for this process; returns the number of the one that has
        claimed it first, of those that were started together.

        Unless overridden, that is this one.
        """
        return self.rank()[0]

    def versions(self) -> Mapping[str, str]:
        """Return the names and versions of the packages that the backend stands on, for reports."""
        from importlib.metadata import version

        return {name: version(name) for name in self.distributions}


def at_once(work: Callable[..., T], ops: TensorOps, tensors: Sequence[Tensor]) -> Callable[[], T]:
    """Work first, and hand over the result: the plain answer to :meth:`Backend.aside`."""
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
    # A third of what `from unicb import bind` would take, and frameworks import it, too.
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
    """Return whether the backend has this part, without running properties: `ops` would import the
    framework."""
    try:
        inspect.getattr_static(backend, part)
    except AttributeError:
        return False
    return True


def load_backend(name: str) -> Backend:
    """Return the backend called ``name``, whether its framework can be imported or not.

    Raises:
        BackendNotFoundError: no such entry point is installed; names those that are.
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
        BackendNotFoundError: no such entry point is installed; names those that are.
        BackendLoadError: it is installed, but it or its framework fails to load; the cause is
            chained.
    """
    return _with_framework(load_backend(name))


def library_of(backend: Backend) -> str:
    """Return the module with the framework's pipelines; empty where the backend does not say."""
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
        BackendLoadError: the owner may be one that failed to load, or its framework fails to.
    """
    is_loop = hasattr(type(pipeline), "_unicb_framework_of")
    if is_loop:  # a loop of one's own has its denoiser's
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
