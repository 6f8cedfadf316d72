"""How classifier-free guidance (CFG) is cut on a pipeline: at the call of the denoiser.

With CFG on, a pipeline's loop runs its denoiser on a doubled batch, unconditional rows beside
conditional ones, and combines the two outputs as ``u + g * (c - u)``. Some of the doubled tensors
are locals of the loop that no callback can reach, but all of them pass through the denoiser's
call. So there the unconditional rows are dropped from every argument, and the output is repeated
to the size that the loop expects: it then combines ``u = c``, which is ``c`` exactly, and half
of the work is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from unicb.backend import Backend
from unicb.errors import UnsupportedPipelineError
from unicb.ops import Tensor
from unicb.pipelines import PipelineFacts, known_pipelines


def require_facts(pipeline: Any, facts: PipelineFacts | None) -> PipelineFacts:
    """``facts``, after checking that guidance can be cut on this pipeline.

    Raises:
        UnsupportedPipelineError: the class is not known, or has no denoiser where expected.
    """
    name = type(pipeline).__name__
    if facts is None:
        raise UnsupportedPipelineError(
            f"cannot cut guidance on {name}: how CFG works on this class is not known. Known: "
            f"{', '.join(known_pipelines())}, classes derived from these, and classes that say it "
            "in an attribute `unicb_facts` (see unicb.PipelineFacts)"
        )
    if getattr(pipeline, facts.denoiser, None) is None:
        raise UnsupportedPipelineError(
            f"cannot cut guidance on this {name}: it has no {facts.denoiser}"
        )
    return facts


def guidance_is_on(pipeline: Any) -> bool:
    """Whether the loop that is running computes an unconditional half."""
    return bool(pipeline.do_classifier_free_guidance)


class GuidanceCut:
    """Hooks on a pipeline's denoisers that leave out the unconditional rows, until removed."""

    def __init__(
        self,
        backend: Backend,
        pipeline: Any,
        facts: PipelineFacts,
        batch: int,
        in_run: Callable[[], bool],
    ) -> None:
        """``batch``: rows of the latents. ``in_run``: whether a call belongs to the run at hand;
        others pass through untouched.
        """
        self._backend = backend
        self._pipeline = pipeline
        self._n = facts.cfg_rows
        self._row = facts.conditional_row
        self._rows = facts.cfg_rows * batch
        self._in_run = in_run
        self._removers: list[Callable[[], None]] = []
        try:
            self._hook(facts.denoiser, must_be_doubled=True)
            for name in facts.companions:
                self._hook(name, must_be_doubled=False)
        except BaseException:
            self.remove()
            raise

    def remove(self) -> None:
        """Take the hooks away. Idempotent."""
        while self._removers:
            self._removers.pop()()

    def _hook(self, name: str, *, must_be_doubled: bool) -> None:
        def around(call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if not self._in_run():
                return call(*args, **kwargs)
            try:
                rows = self._rows_of(args, kwargs)
                if rows == self._rows:
                    out = call(*self._map(self._cut, args), **self._map(self._cut, kwargs))
                    return self._map(self._restore, out)
                if must_be_doubled:
                    raise UnsupportedPipelineError(
                        f"{type(self._pipeline).__name__} called its {name} with {rows} rows "
                        f"where CFG should give {self._rows}; guidance cannot be cut on it"
                    )
                # In guess mode a ControlNet gets the conditional rows alone: nothing to cut.
                return call(*args, **kwargs)
            except BaseException:
                self.remove()
                raise

        self._removers.append(self._backend.hook(getattr(self._pipeline, name), around))

    def _rows_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
        """Batch size of the sample, which is the first tensor that a denoiser is called with."""
        for value in (*args, *kwargs.values()):
            if self._backend.is_tensor(value) and len(value.shape) > 1:
                return int(value.shape[0])
        return 0

    def _cut(self, x: Tensor) -> Tensor:
        if len(x.shape) == 0 or x.shape[0] != self._rows:
            return x
        return self._backend.ops.chunk(x, self._n)[self._row]

    def _restore(self, x: Tensor) -> Tensor:
        return self._backend.repeat(x, self._n) if len(x.shape) > 0 else x

    def _map(self, function: Callable[[Tensor], Tensor], value: Any) -> Any:
        """Apply ``function`` to every tensor in nested tuples, lists and mappings."""
        if self._backend.is_tensor(value):
            return function(value)
        if isinstance(value, Mapping):
            items = {key: self._map(function, item) for key, item in value.items()}
            return items if type(value) is dict else type(value)(**items)
        if isinstance(value, list | tuple):
            mapped = [self._map(function, item) for item in value]
            named = hasattr(value, "_fields")
            return type(value)(*mapped) if named else type(value)(mapped)
        return value
