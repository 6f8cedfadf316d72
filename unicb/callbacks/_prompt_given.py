"""Read prompts as users give them to callbacks: texts, or embeddings."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from unicb.checks import shown

#: One text for all pictures, or a list with one text for each prompt of the pipeline's call; or a
#: dict with texts for ``prompt`` and ``prompt_2``. Or embeddings: a tensor, the result of the
#: pipeline's ``encode_prompt`` or of compel, or a dict of tensors by diffusers' names.
Prompt: TypeAlias = Any

_TEXTS = re.compile(r"(negative_)?prompt(_\d+)?$")
_KINDS = (
    "a text, a list of texts, embeddings (tensors of the pipeline's framework), or a dict of either"
)


@dataclass(frozen=True)
class Texts:
    """Texts to encode.

    Attributes:
        by_name: texts by ``"prompt"``, and by ``"prompt_2"`` and so on if these differ: one text
            for all pictures, or one for each prompt of the call.
    """

    by_name: tuple[tuple[str, str | tuple[str, ...]], ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.by_name)

    @property
    def lengths(self) -> set[int]:
        """Return the numbers of texts that occur among its lists."""
        return {len(texts) for _, texts in self.by_name if not isinstance(texts, str)}

    def __str__(self) -> str:
        plain = [shown(list(x) if isinstance(x, tuple) else x) for _, x in self.by_name]
        if self.names == ("prompt",):
            return plain[0]
        return " and ".join(f"{name}={x}" for name, x in zip(self.names, plain, strict=True))


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Tensors given in place of a prompt's text.

    Attributes:
        parts: tensors by name; or a sequence in the order of ``encode_prompt``'s results, with None
            for a result that is missing; or a single tensor.
    """

    parts: Any

    def tensors(self) -> list[Any]:
        parts = self.parts.values() if isinstance(self.parts, dict) else self.parts
        every = parts if isinstance(self.parts, dict | tuple) else [parts]
        return [part for part in every if part is not None]

    def __str__(self) -> str:
        shapes = [str(tuple(int(n) for n in tensor.shape)) for tensor in self.tensors()]
        return f"embeddings of shape {' and '.join(shapes)}"


Given: TypeAlias = Texts | Embeddings


def given_prompt(what: str, value: Any, *, negative: bool = False) -> Given:
    """Return a user's prompt as :class:`Texts` or :class:`Embeddings`.

    Args:
        what: the prompt's name in messages.
        value: the prompt as given.
        negative: True for a negative prompt.

    Raises:
        TypeError: ``value`` is no prompt.
        ValueError: ``value`` is empty, or has names that belong to another argument.
    """
    if isinstance(value, str):
        return Texts((("prompt", value),))
    if _is_tensor(value):
        return Embeddings(value)
    if isinstance(value, Mapping):
        return _by_name(what, value, negative)
    if _is_tensor(getattr(value, "embeds", None)):  # the result of later releases of compel
        if negative and getattr(value, "negative_embeds", None) is not None:
            raise ValueError(
                f"{what} has embeddings of a prompt and of a negative one; give those that are "
                "meant, as in {'prompt_embeds': conditioning.negative_embeds}"
            )
        pooled = getattr(value, "pooled_embeds", None)
        parts = {"prompt_embeds": value.embeds, "pooled_prompt_embeds": pooled}
        return Embeddings({name: part for name, part in parts.items() if part is not None})
    if isinstance(value, Sequence):
        if not value:
            raise ValueError(f"{what} is an empty list; it must be {_KINDS}")
        if all(isinstance(one, str) for one in value):
            return Texts((("prompt", tuple(value)),))
        if all(one is None or _is_tensor(one) for one in value) and value[0] is not None:
            return Embeddings(tuple(value))
    raise TypeError(f"{what} may be {_KINDS}, not {shown(value)}")


def _by_name(what: str, value: Mapping[Any, Any], negative: bool) -> Given:
    if not value or not all(isinstance(name, str) for name in value):
        raise TypeError(f"{what} may be {_KINDS}, by names such as 'prompt', not {shown(value)}")
    theirs = [name for name in value if name.startswith("negative_")]
    if theirs and not negative:
        raise ValueError(
            f"{what} has {theirs[0]}, which is no part of a prompt: negative prompts have a "
            "schedule of their own, PromptSchedule(..., negative=[...])"
        )
    plain = {name.removeprefix("negative_"): each for name, each in value.items()}
    if len(plain) < len(value):
        raise ValueError(f"{what} has {theirs[0]} and the same without 'negative_'; give one")
    texts = {name: _texts(each) for name, each in plain.items()}
    if all(_TEXTS.match(name) and texts[name] is not None for name in plain):
        if "prompt" not in plain:
            raise ValueError(f"{what} has {' and '.join(value)}, and lacks 'prompt'")
        return Texts(tuple((name, text) for name, text in texts.items() if text is not None))
    if all(each is None or _is_tensor(each) for each in plain.values()):
        return Embeddings({name: each for name, each in plain.items() if each is not None})
    raise TypeError(f"{what} may be {_KINDS}, not {shown(dict(value))}")


def _texts(value: Any) -> str | tuple[str, ...] | None:
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple) and value and all(isinstance(one, str) for one in value):
        return tuple(value)
    return None


def _is_tensor(value: Any) -> bool:
    """Return whether ``value`` looks like a tensor of any framework; ``bind`` checks of which."""
    is_one = hasattr(value, "shape") and hasattr(value, "dtype")
    return is_one and not isinstance(value, type)
