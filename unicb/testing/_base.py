"""Define the base class of the groups of checks."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt

from unicb.ops import Tensor
from unicb.pipelines import PipelineFacts, facts_for
from unicb.testing.harness import Case, Harness

Check = TypeVar("Check", bound=Callable[..., None])


def on_sampled_kinds(check: Check) -> Check:
    """Mark a check that is made only on :attr:`Harness.sampled_kinds`."""
    check.on_sampled_kinds = True  # type: ignore[attr-defined]
    return check


class Checks:
    """``Checks`` is the base of the groups of checks."""

    harness: Harness
    _pipelines: ClassVar[dict[tuple[int, str], Any]] = {}

    def pipeline(self, kind: str | None = None) -> Any:
        """Return a pipeline of this kind (None: the first kind), built once for all checks."""
        kind = kind or self.harness.kinds[0]
        key = (id(self.harness), kind)
        if key not in self._pipelines:
            self._pipelines[key] = self.harness.build(kind)
        return self._pipelines[key]

    def case(self, **settings: Any) -> Case:
        """Return a case of the first kind of pipeline, plain text to image."""
        return Case(**{"kind": self.harness.kinds[0], **settings})

    def facts(self, pipeline: Any) -> PipelineFacts:
        """Return the facts about the pipeline's class, which every kind must have."""
        facts = facts_for(pipeline)
        assert facts is not None, f"nothing is known of {type(pipeline).__name__}"
        return facts

    def tensor(self, array: npt.NDArray[Any], dtype: str) -> Tensor:
        """Return the array as a tensor of the framework, rounded to this dtype."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # numpy's, on overflow of float16
            return self.harness.tensor(array, dtype)

    @contextmanager
    def spied(
        self, pipeline: Any, change: Callable[[int, Any], Any] | None = None
    ) -> Iterator[list[int]]:
        """Count the rows of every call of the denoiser; ``change(call number, output)`` may
        replace the output.
        """
        rows: list[int] = []

        def around(call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            rows.append(self._rows(args, kwargs))
            out = call(*args, **kwargs)
            return out if change is None else change(len(rows) - 1, out)

        undo = self.harness.spy(pipeline, around)
        try:
            yield rows
        finally:
            undo()

    def _rows(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
        values = (*args, *kwargs.values())
        sample = next(v for v in values if self.harness.backend.is_tensor(v) and len(v.shape) > 1)
        return int(sample.shape[0])

    def sample_of(self, out: Any) -> Tensor:
        """Return the tensor in a denoiser's output."""
        if self.harness.backend.is_tensor(out):
            return out
        return out[0] if isinstance(out, tuple) else next(iter(out.values()))

    def conditional_only(self, pipeline: Any, out: Any) -> Any:
        """Return a denoiser's output with the unconditional rows replaced by the conditional
        ones."""
        backend = self.harness.backend
        order = self.facts(pipeline).order

        def replace(x: Tensor) -> Tensor:
            part = backend.ops.chunk(x, len(order))[order.index("conditional")]
            return backend.ops.concat([part] * len(order))

        if backend.is_tensor(out):
            return replace(out)
        if isinstance(out, tuple):
            return (replace(out[0]), *out[1:])
        first = next(iter(out))
        return type(out)(**{**out, first: replace(out[first])})


def relative_error(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    """Return the largest difference, in standard deviations of ``b``."""
    return float(np.abs(a - b).max() / b.std())


class Shout(Exception):
    """Callbacks under test raise this error; nothing else raises or catches it."""


class failing_scheduler:
    """While open, the pipeline's scheduler raises Shout at its n-th step."""

    def __init__(self, pipeline: Any, call: int) -> None:
        self.scheduler, self.left = pipeline.scheduler, call

    def __enter__(self) -> None:
        step = self.scheduler.step

        def fail(*args: Any, **kwargs: Any) -> Any:
            self.left -= 1
            if self.left <= 0:
                raise Shout
            return step(*args, **kwargs)

        self.scheduler.step = fail

    def __exit__(self, *_: object) -> None:
        del self.scheduler.step
