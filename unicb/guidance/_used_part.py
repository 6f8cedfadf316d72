"""Find the part of a prediction that a loop uses: some models predict more than the latents
need."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from typing import NamedTuple

from unicb.guidance._models import Models
from unicb.ops import Tensor
from unicb.pipelines.source import CallSource

#: Code of loops that use the first tokens of a prediction, as many as the latents have.
_FIRST_TOKENS = re.compile(r"\[:, ?: ?(latents\.(size\(1\)|shape\[1\])|image_seq_len)")


class UsedPart(NamedTuple):
    """A used part is the part of a prediction that a loop uses.

    Attributes:
        taken: a function that returns that part of a prediction, with rows on the first axis.
        put_back: a function that returns the original prediction with another part in its place.
    """

    taken: Callable[[Tensor], Tensor]
    put_back: Callable[[Tensor], Tensor]


def used_part(models: Models, x: Tensor, latents: tuple[int, ...]) -> UsedPart:
    """Return the part of the prediction ``x`` that the loop uses. ``latents`` is the latents'
    shape, or empty.

    Raises:
        UnsupportedPipelineError: ``x`` is longer than the latents, and unicb does not know which
            part is used.
    """
    shape, frames = tuple(x.shape), models.facts.frames_axis
    is_folded = frames is not None and 1 < len(shape) < len(latents)
    if is_folded and frames is not None and shape[0] == latents[0] * latents[frames]:
        apart = (latents[0], latents[frames], *shape[1:])
        return UsedPart(lambda y: y.reshape(apart), lambda y: y.reshape(shape))
    if len(shape) != len(latents) or len(shape) < 3 or shape[1] <= latents[1]:
        return UsedPart(_as_it_is, _as_it_is)
    whole, count = shape[1], latents[1]
    first: int | None = None
    if len(shape) > 3:
        # A learned variance has as many channels as the prediction itself, and comes after it.
        first = 0 if whole == 2 * count and shape[2:] == latents[2:] else None
    elif models.facts.tail:
        first = whole - count
    elif _uses_first_tokens(type(models.pipeline)):
        first = 0
    if first is None:
        models.mismatch(
            f"its denoiser predicts {whole} along axis 1, and its latents have {count}",
            "it should be known which of them the loop uses",
        )
    return _between(models.backend.ops.concat, x, first, first + count)


def _as_it_is(x: Tensor) -> Tensor:
    return x


def _between(concat: Callable[..., Tensor], x: Tensor, first: int, end: int) -> UsedPart:
    """Make the used part from ``first`` to ``end`` along axis 1."""

    def put_back(y: Tensor) -> Tensor:
        parts = [part for part in (x[:, :first], y, x[:, end:]) if part.shape[1]]
        return concat([part.swapaxes(0, 1) for part in parts]).swapaxes(0, 1)

    return UsedPart(lambda y: y[:, first:end], put_back)


def _uses_first_tokens(kind: type) -> bool:
    source = CallSource.of(kind)
    return source.once(_reads_first_tokens, source)


def _reads_first_tokens(source: CallSource) -> bool:
    tree = source.written.tree
    return tree is not None and _FIRST_TOKENS.search(ast.unparse(tree)) is not None
