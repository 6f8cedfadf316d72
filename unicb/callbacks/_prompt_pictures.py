"""Say which texts each picture of a call is made from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from unicb.callbacks._prompt_given import Texts
from unicb.callbacks._prompt_loop import EncoderCall

_T = TypeVar("_T")

#: For one picture: its text, and those of prompt_2 and so on where they are others, by name.
Row: TypeAlias = tuple[str, tuple[tuple[str, str], ...]]

#: The loop's locals that say how many pictures are made for each prompt.
IMAGES = ("num_images_per_prompt", "num_videos_per_prompt", "num_waveforms_per_prompt")
_FURTHER = re.compile(r"prompt_\d+$")


class Pictures:
    """``Pictures`` are those that one call of a pipeline makes. Those of one prompt are neighbours.

    Attributes:
        batch: how many there are.

    Args:
        pipeline: that is running.
        loop_locals: the values that its loop has in its locals, as the encoder calls need them.
        who: name of the callback, for errors.
    """

    def __init__(self, pipeline: Any, loop_locals: Mapping[str, Any], batch: int, who: str) -> None:
        self.batch = batch
        self._pipeline, self._locals, self._who = pipeline, loop_locals, who

    def called_texts(self, call: EncoderCall, negative: bool) -> Texts | None:
        """Return the texts that the pipeline was called with; None if those were embeddings."""
        if negative:
            main = texts_of(self._locals.get("negative_prompt") or "")
        else:
            main = texts_of(call.original(self._pipeline, self._locals).get(call.main))
        return None if main is None else Texts((("prompt", tuple(main)),))

    def rows(self, call: EncoderCall, prompt: Texts, negative: bool) -> list[Row]:
        """Return what is to be encoded for each picture: of prompt_2 and so on, what the prompt
        says of it, or else the call's."""
        by_name = dict(prompt.by_name)
        mains = self._of_each(by_name["prompt"], "prompt")
        prefix = "negative_" if negative else ""
        original = call.original(self._pipeline, self._locals)
        further: list[tuple[str, list[str]]] = []
        for parameter in call.parameters:
            name = parameter.removeprefix(prefix)
            if not (parameter.startswith(prefix) and _FURTHER.match(name)):
                continue
            said = by_name[name] if name in by_name else original.get(parameter)
            if said:  # else it is the first, as in a call
                further.append((name, self._of_each(said, name)))
        # As encode_prompt has it: without one of its own, it is the first.
        return [
            (main, tuple((name, texts[row]) for name, texts in further))
            for row, main in enumerate(mains)
        ]

    def spread(self, each: Sequence[_T], what: str) -> list[_T]:
        """Return one for each picture, given one for all or for each prompt of the call.

        Raises:
            ValueError: there are not as many as prompts, nor one for all. ``what`` says what they
                are.
        """
        if len(each) == 1:
            return [*each] * self.batch
        if len(each) == self.batch:
            return [*each]
        images = [self._locals[name] for name in IMAGES if self._locals.get(name)]
        prompts = self.batch // (images[0] if images else 1)
        if len(each) != prompts:
            raise ValueError(
                f"{self._who}: {what}, and the pipeline was called with {prompts} prompts; give "
                "one for each, or a single one for all"
            )
        return [each[index] for index in self.indices(len(each))]

    def indices(self, prompts: int) -> list[int]:
        """Return the index of each picture's prompt, of so many."""
        return [row * prompts // self.batch for row in range(self.batch)]

    def _of_each(self, texts: Any, name: str) -> list[str]:
        """Return one text for each picture."""
        each = [texts] if isinstance(texts, str) else list(texts)
        return self.spread(each, f"a list of {len(each)} {name}s")


def texts_of(called: Any) -> list[str] | None:
    """Return the texts that a call was given; None if it was given none, or something else."""
    if isinstance(called, str):
        return [called]
    if isinstance(called, list | tuple) and all(isinstance(text, str) for text in called):
        return list(called)
    return None


def further_texts(rows: Sequence[Row], prefix: str) -> dict[str, list[str]]:
    """Return what ``encode_prompt`` gets besides its first prompts."""
    names = dict.fromkeys(name for _, others in rows for name, _ in others)
    # What only others of the rows have is the first prompt, as encode_prompt has it.
    return {
        prefix + name: [dict(others).get(name, main) for main, others in rows] for name in names
    }
