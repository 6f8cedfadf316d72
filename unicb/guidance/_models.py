"""Find the models that a pipeline's loop calls, and hook all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from unicb.backend import Backend
from unicb.errors import UnsupportedPipelineError
from unicb.guidance._caching import refuse_caching
from unicb.guidance._static import static_rows
from unicb.pipelines import PipelineFacts
from unicb.pipelines.hookable import hooked

if TYPE_CHECKING:
    from unicb.run.run import Run

#: A function that answers a call: ``answer(model's name, its own call, args, kwargs)``.
Answer: TypeAlias = Callable[[str, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


class Models:
    """``Models`` are a pipeline's denoisers and their companions, as its facts name them."""

    def __init__(
        self,
        backend: Backend,
        pipeline: Any,
        facts: PipelineFacts,
        run: Run | None,
        aim: str = "cut guidance",
    ) -> None:
        """Note the run whose calls are answered; calls of other runs pass. ``run`` is None for a
        check before a run. ``aim`` says in messages what is to be done."""
        self.backend = backend
        self.pipeline = pipeline
        self.facts = facts
        self._run = run
        self.aim = aim
        self._hooked: dict[str, Any] = {}
        self._removers: list[Callable[[], None]] = []
        if not any(self.denoisers()):
            raise UnsupportedPipelineError(
                f"cannot {aim} on this {self.name}: it has no {' or '.join(facts.denoisers)}"
            )

    def with_facts(self, facts: PipelineFacts) -> Models:
        """Return the same models of the same run, with other facts and without hooks."""
        return Models(self.backend, self.pipeline, facts, self._run, self.aim)

    @property
    def name(self) -> str:
        """Return the name of the pipeline's class."""
        return type(self.pipeline).__name__

    @property
    def attributes(self) -> Any:
        """Return the object whose attributes the loop reads at each step: the pipeline, or the
        state of a modular pipeline's loop block."""
        step = None if self._run is None else self._run.target.block_step
        return self.pipeline if step is None else step.state

    def denoiser(self) -> Any:
        """Return the first denoiser that the pipeline has."""
        return next(model for _, model in self.denoisers())

    def denoisers(self) -> Iterator[tuple[str, Any]]:
        """Yield all denoisers that the pipeline has, with their names."""
        return ((name, model) for name, model in self._present() if name in self.facts.denoisers)

    def hook(self, answer: Answer) -> None:
        """Let ``answer`` answer all of the run's calls of the models, until :meth:`remove`."""
        hook = self.backend.hook if self._run is None else self._run.hook
        try:
            for name, model in self._present():
                aim = f"{self.aim} on {self.name} by its {name}"
                self._removers.append(hooked(hook, model, self._around(name, answer), aim))
                self._hooked[name] = model
        except BaseException:
            self.remove()
            raise

    def refuse_caching(self) -> None:
        """Raise UnsupportedPipelineError if a caching library is enabled on one of the models."""
        refuse_caching(self._present(), self.name, self.aim)

    def check_rows(self) -> None:
        """Raise UnsupportedPipelineError if a model was exported for one fixed number of rows."""
        for name, model in self._present():
            if (rows := static_rows(model)) is not None:
                raise UnsupportedPipelineError(
                    f"cannot {self.aim} on {self.name}: its {name} was exported with a batch of "
                    f"{rows} and takes no other, and a cut leaves rows out; export it with a "
                    "dynamic batch"
                )

    def reset_caches(self, *, rehearse: bool = False) -> None:
        """Make the frameworks' caching hooks forget earlier calls, which had other shapes."""
        for model in self._hooked.values():
            self.backend.reset_caches(model, rehearse=rehearse)

    def reset_all_caches(self) -> None:
        """Reset the caches of all models, also of those that are not hooked."""
        for _, model in self._present():
            self.backend.reset_caches(model)

    def remove(self) -> None:
        """Take the hooks away. Idempotent."""
        while self._removers:
            self._removers.pop()()
        self._hooked.clear()

    def mismatch(self, found: str, expected: str) -> NoReturn:
        """Raise UnsupportedPipelineError: the loop does not work as its facts say."""
        raise UnsupportedPipelineError(
            f"cannot {self.aim} on {self.name}: {found}, where {expected}; the pipeline has been "
            f"put back as it was. Facts from: {self.facts.source}"
        )

    def sample(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the sample that a model denoises: its first argument that is a tensor with axes
        (or, in a listed batch, a list)."""
        for value in (*args, *kwargs.values()):
            if self.facts.listed and isinstance(value, list):
                return value
            if self.backend.is_tensor(value) and len(value.shape) > 1:
                return value
        return None

    def note(self, computed: int, whole: int, unit: str = "rows", by: str = "") -> None:
        """Note for the run's report one call of a denoiser, or all calls of a step, while guidance
        is cut.

        Args:
            computed: how many units the denoiser computed.
            whole: how many units it would have computed without the cut.
            unit: the unit: "rows", or "calls".
            by: the denoiser's name; empty if it does not matter.
        """
        if self._run is not None:
            self._run.record.called(by or "/".join(self.facts.denoisers), computed, whole, unit)

    def fills(self, kwargs: dict[str, Any]) -> bool:
        """Return whether a call with these arguments fills a cache for later calls, which may be
        guided."""
        wanted, _, value = self.facts.fills.partition("=")
        name, _, key = wanted.partition(".")
        found = kwargs.get(name)
        if key:
            found = found.get(key) if isinstance(found, Mapping) else None
        return bool(found == value if value else found)

    def _present(self) -> Iterator[tuple[str, Any]]:
        for name in (*self.facts.denoisers, *self.facts.companions):
            if (model := getattr(self.pipeline, name, None)) is not None:
                yield name, model

    def _around(self, name: str, answer: Answer) -> Any:
        def around(call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            run = self._run
            if run is None or not run.owns_current_call():
                if run is not None and not run.is_executing():
                    run.finish()  # it ended unnoticed: its traceback may be kept alive
                return call(*args, **kwargs)
            try:
                return answer(name, call, args, kwargs)
            except BaseException:
                run.finish()
                raise

        return around
