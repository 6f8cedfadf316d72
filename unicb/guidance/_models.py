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

#: Answers a call of the model of that name.
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
        """Take the run whose calls are to be answered; others pass. ``run`` is None to rehearse.
        ``aim`` says in messages what is to be done."""
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
        """Return the same models of the same run, with other facts about them; nothing is
        hooked."""
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
        """Have ``answer`` answer all calls that belong to the run, until :meth:`remove`."""
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
        """Raise UnsupportedPipelineError if another library answers calls from earlier ones."""
        refuse_caching(self._present(), self.name, self.aim)

    def check_rows(self) -> None:
        """Raise UnsupportedPipelineError if a model takes one number of rows only."""
        for name, model in self._present():
            if (rows := static_rows(model)) is not None:
                raise UnsupportedPipelineError(
                    f"cannot {self.aim} on {self.name}: its {name} was exported with a batch of "
                    f"{rows} and takes no other, and a cut leaves rows out; export it with a "
                    "dynamic batch"
                )

    def reset_caches(self, *, rehearse: bool = False) -> None:
        """Have the frameworks' caching hooks forget earlier calls, which had other shapes."""
        for model in self._hooked.values():
            self.backend.reset_caches(model, rehearse=rehearse)

    def reset_all_caches(self) -> None:
        """Do so for models that are not hooked, too."""
        for _, model in self._present():
            self.backend.reset_caches(model)

    def remove(self) -> None:
        """Take the hooks away. Idempotent."""
        while self._removers:
            self._removers.pop()()
        self._hooked.clear()

    def mismatch(self, found: str, expected: str) -> NoReturn:
        """Raise the error for a loop that does not do what its facts say."""
        raise UnsupportedPipelineError(
            f"cannot {self.aim} on {self.name}: {found}, where {expected}; the pipeline has been "
            f"put back as it was. Facts from: {self.facts.source}"
        )

    def sample(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return what a model denoises: the first tensor with axes (or list, in a listed batch)."""
        for value in (*args, *kwargs.values()):
            if self.facts.listed and isinstance(value, list):
                return value
            if self.backend.is_tensor(value) and len(value.shape) > 1:
                return value
        return None

    def note(self, computed: int, whole: int, unit: str = "rows", by: str = "") -> None:
        """Note a call of a denoiser, or all of a step, while guidance is cut, for the run's report.

        Args:
            computed: what the denoiser computed, in some unit.
            whole: what the loop has got of it.
            unit: which.
            by: the denoiser's name; it may be any, without.
        """
        if self._run is not None:
            self._run.record.called(by or "/".join(self.facts.denoisers), computed, whole, unit)

    def fills(self, kwargs: dict[str, Any]) -> bool:
        """Return whether a call with these arguments fills a cache for later ones, which may be
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
                    run.finish()  # it has ended without a sign: its traceback may be kept
                return call(*args, **kwargs)
            try:
                return answer(name, call, args, kwargs)
            except BaseException:
                run.finish()
                raise

        return around
