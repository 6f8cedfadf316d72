"""Match a user's own embeddings to the loop's names for embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from unicb.backend import Backend
from unicb.callbacks._prompt_given import Embeddings
from unicb.callbacks._prompt_loop import PromptLoop, own_results
from unicb.ops import Tensor


def named_embeddings(
    given: Embeddings, loop: PromptLoop, backend: Backend, kind: str, *, negative: bool
) -> dict[str, Tensor]:
    """Tensors by the names of what ``encode_prompt`` returns for a prompt, such as
    ``pooled_prompt_embeds``.

    Args:
        given: the user's embeddings.
        loop: the facts about prompts of the pipeline class's loop.
        backend: the backend of the pipeline's framework.
        kind: name of the pipeline's class, for messages.
        negative: True for the embeddings of a negative prompt.

    Raises:
        TypeError: the embeddings are no tensors of that framework.
        ValueError: there are more embeddings than the loop has, one has an unknown name, or one is
            missing.
    """
    for part in given.tensors():
        if not backend.is_tensor(part):
            raise TypeError(
                f"embeddings for {kind} must be tensors of its framework, not a "
                f"{type(part).__qualname__}; backend.ops.from_numpy makes one of a host array"
            )
    found = _by_name(given, loop, kind, negative)
    needed = dict.fromkeys(slot.result for slot in loop.slots)
    if missing := [name for name in needed if name not in found]:
        raise ValueError(
            f"{given} lack {' and '.join(missing)}: {kind} exchanges {' and '.join(needed)} "
            "together. Give what its encode_prompt returns, or a dict of tensors by these names"
        )
    return found


def _by_name(given: Embeddings, loop: PromptLoop, kind: str, negative: bool) -> dict[str, Tensor]:
    own = own_results(loop)
    parts = given.parts
    if isinstance(parts, dict):
        also: dict[str, str] = {slot.name: slot.result for slot in loop.slots}
        if unknown := [name for name in parts if name not in own and name not in also]:
            raise ValueError(
                f"embeddings for {kind} have {unknown[0]}, which its encode_prompt does not make; "
                f"it makes {', '.join(own)}"
            )
        return {also.get(str(name), str(name)): part for name, part in parts.items()}
    if not isinstance(parts, tuple):
        return {own[0]: parts}
    if len(parts) == len(own):
        return _without_none(own, parts)
    returned = loop.calls[0].results if len(loop.calls) == 1 else ()
    if len(parts) != len(returned):
        raise ValueError(
            f"{len(parts)} tensors are given for a prompt of {kind}, whose encode_prompt makes "
            f"{', '.join(own)} of one; give these, or a dict of tensors by their names"
        )
    if negative:
        raise ValueError(
            f"what encode_prompt of {kind} returns has embeddings of a prompt and of a negative "
            f"one; in negative=, give those that are meant: {', '.join(own)}"
        )
    named = _without_none(returned, parts)
    return {name: part for name, part in named.items() if name in own}


def _without_none(names: Sequence[str], parts: Sequence[Any]) -> dict[str, Any]:
    pairs = zip(names, parts, strict=True)
    return {name: part for name, part in pairs if part is not None}
