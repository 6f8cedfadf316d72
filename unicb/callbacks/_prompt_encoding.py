"""Encode prompts while a loop runs, as that call of the pipeline would have encoded them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np

from unicb.backend import Backend
from unicb.callbacks._prompt_embeddings import named_embeddings
from unicb.callbacks._prompt_given import Embeddings, Given, Texts
from unicb.callbacks._prompt_loop import EncoderCall, PromptLoop, Slot, prompt_loop
from unicb.callbacks._prompt_rows import Rows
from unicb.errors import UnsupportedPipelineError
from unicb.ops import Tensor
from unicb.step import Step

_T = TypeVar("_T")

#: For one picture: its text, and those of prompt_2 and so on where they are others, by name.
_Row: TypeAlias = tuple[str, tuple[tuple[str, str], ...]]
#: The embeddings of one prompt, by the loop's names, with one row for each picture.
Encoded: TypeAlias = Mapping[str, Tensor]

#: How far the loop's embeddings may be from those of the same prompts encoded again, in their
#: standard deviations: batches of another size may differ by bfloat16's rounding.
_SAME = 0.05
_FURTHER = re.compile(r"prompt_\d+$")
_IMAGES = ("num_images_per_prompt", "num_videos_per_prompt", "num_waveforms_per_prompt")


class Encoder:
    """Encode prompts at the end of a step.

    Args:
        who: name of the callback, for errors.
    """

    def __init__(self, step: Step, who: str) -> None:
        self._step, self._who = step, who
        self._kind = type(step.pipeline).__name__
        self._backend: Backend = step.run.target.backend
        self._loop: PromptLoop = prompt_loop(type(step.pipeline))
        needed = {name for call in self._loop.calls for name in call.locals()}
        self._locals = step.run.loop_locals([*needed, *_IMAGES, "negative_prompt"])
        tensors = ((slot, step.in_loop(slot.name)) for slot in self._loop.slots)
        self._current = {slot: tensor for slot, tensor in tensors if tensor is not None}
        self._rows = {slot: Rows(step, slot.name, t) for slot, t in self._current.items()}
        if not self._current:
            raise UnsupportedPipelineError(f"{self._kind}'s loop has no prompt embeddings")
        self.batch = next(iter(self._rows.values())).batch

    def check_called_with(self, prompt: Given, encoded: Encoded, negative: bool = False) -> None:
        """Check that ``prompt`` is what the pipeline was called with, as far as that is known."""
        what = "negative prompt" if negative else "prompt"
        if isinstance(prompt, Embeddings):
            called = self.called(negative)
            same = (
                _alike(*map(self._step.ops.to_numpy, (encoded[name], called[name])))
                for name in called
            )
            if not all(same):
                raise ValueError(
                    f"{self._who}: the schedule starts at 0.0 with {prompt}, and the pipeline was "
                    f"called with another {what}, which is what the first step was made with. Call "
                    "it with these embeddings, or have the schedule start later"
                )
            return
        call = self._loop.calls[0]
        texts = self._called_texts(call, negative)
        if texts is None:
            return
        mine, theirs = (self._rows_of(call, each, negative) for each in (prompt, texts))
        if mine != theirs:
            raise ValueError(
                f"{self._who}: the schedule starts at 0.0 with {prompt}, and the pipeline was "
                f"called with the {what} {texts}, which is what the first step was made with. "
                "Call it with the schedule's first one"
            )

    def called(self, negative: bool = False) -> Encoded:
        """Return the embeddings that the pipeline was called with; nothing where it has none of
        this kind."""
        found = {}
        for slot, tensor in self._current.items():
            part = self._rows[slot].of("unconditional" if negative else "conditional", tensor)
            if part is None and slot.negative in self._loop.taken:
                part = self._step.in_loop(slot.negative)
            if part is not None:
                found[slot.name] = part
        return found

    def encode(self, prompts: Sequence[Given], negative: bool = False) -> list[Encoded]:
        """Encode prompts, or prompts to be used as negative ones; embeddings are taken as such."""
        found: list[dict[str, Tensor]] = [
            self._given(prompt, negative) if isinstance(prompt, Embeddings) else {}
            for prompt in prompts
        ]
        texts = [
            (prompt, made)
            for prompt, made in zip(prompts, found, strict=True)
            if isinstance(prompt, Texts)
        ]
        for index, call in enumerate(self._loop.calls if texts else ()):
            as_negative = negative and "negative_prompt" in call.parameters
            rows = [self._rows_of(call, prompt, negative) for prompt, _ in texts]
            unique = list(dict.fromkeys(row for each in rows for row in each))
            mains = [main for main, _ in unique]
            with self._backend.fork_rng():
                returned = call.encode(
                    self._step.pipeline,
                    self._locals,
                    mains,
                    mains if as_negative else None,
                    _others(unique, "negative_" if as_negative else ""),
                )
                if not negative:
                    self._check_kept(returned)
                for slot in self._slots_of(index):
                    tensor = returned.get(slot.negative if as_negative else slot.result)
                    tensor = self._fitted(slot, tensor, mains)
                    for each, (_, made) in zip(rows, texts, strict=True):
                        made[slot.name] = self._picked(tensor, [unique.index(row) for row in each])
        return [*found]

    def _given(self, prompt: Embeddings, negative: bool) -> dict[str, Tensor]:
        """Return embeddings of the user's own as the loop has them, one row for each picture."""
        named = named_embeddings(prompt, self._loop, self._backend, self._kind, negative=negative)
        found: dict[str, Tensor] = {}
        for slot, current in self._current.items():
            tensor = named[slot.result]
            mine, theirs = (tuple(int(n) for n in x.shape) for x in (tensor, current))
            if mine[1:] != theirs[1:]:
                raise ValueError(
                    f"{self._who}: the {slot.result} that are given have the shape {mine}, and "
                    f"the loop of {self._kind} works with {theirs}: all but the first of these "
                    "numbers must be the same"
                )
            rows = self._spread(range(mine[0]), f"{slot.result} of {mine[0]} rows")
            found[slot.name] = self._picked(self._placed(tensor, current), rows)
        return found

    def _placed(self, tensor: Tensor, like: Tensor) -> Tensor:
        """Return the tensor with the dtype and on the device of another."""
        places = [(x.dtype, str(getattr(x, "device", ""))) for x in (tensor, like)]
        if places[0] == places[1]:
            return tensor
        return self._step.ops.from_numpy(self._step.ops.to_numpy(tensor), like)

    def _called_texts(self, call: EncoderCall, negative: bool) -> Texts | None:
        """Return the texts that the pipeline was called with; None if those were embeddings."""
        if negative:
            main = _texts(self._locals.get("negative_prompt") or "")
        else:
            main = _texts(call.original(self._step.pipeline, self._locals).get(call.main))
        return None if main is None else Texts((("prompt", tuple(main)),))

    def _rows_of(self, call: EncoderCall, prompt: Texts, negative: bool) -> list[_Row]:
        """Return what is to be encoded for each picture: of prompt_2 and so on, what the prompt
        says of it, or else the call's."""
        by_name = dict(prompt.by_name)
        mains = self._of_each(by_name["prompt"], "prompt")
        prefix = "negative_" if negative else ""
        original = call.original(self._step.pipeline, self._locals)
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

    def verify(self) -> None:
        """Check that the loop works with what ``encode_prompt`` returns.

        Raises:
            UnsupportedPipelineError: encoded again, the call's own prompts are something else.
        """
        for index, call in enumerate(self._loop.calls):
            others = call.original(self._step.pipeline, self._locals)
            texts = _texts(others.pop(call.main, None))
            if texts is None:
                return  # it was called with embeddings, or with a schedule of its own
            with self._backend.fork_rng():
                returned = call.encode(self._step.pipeline, self._locals, texts, others=others)
                for slot in self._slots_of(index):
                    tensor = self._fitted(slot, returned.get(slot.result), texts)
                    picked = self._picked(tensor, self._indices(len(texts)))
                    mine = self._rows[slot].of("conditional", self._current[slot])
                    if not _alike(*map(self._step.ops.to_numpy, (picked, mine))):
                        raise UnsupportedPipelineError(
                            f"{self._who} cannot exchange the prompt of this {self._kind}: its "
                            f"loop works with other {slot.name} than its encode_prompt makes of "
                            "the prompt that it was called with"
                        )

    def _slots_of(self, call: int) -> list[Slot]:
        return [slot for slot in self._current if slot.call == call]

    def _of_each(self, texts: Any, name: str) -> list[str]:
        """Return one text for each picture."""
        each = [texts] if isinstance(texts, str) else list(texts)
        return self._spread(each, f"a list of {len(each)} {name}s")

    def _spread(self, each: Sequence[_T], what: str) -> list[_T]:
        """Return one for each picture, given one for all or for each prompt of the call."""
        if len(each) == 1:
            return [*each] * self.batch
        if len(each) == self.batch:
            return [*each]
        images = [self._locals[name] for name in _IMAGES if self._locals.get(name)]
        prompts = self.batch // (images[0] if images else 1)
        if len(each) != prompts:
            raise ValueError(
                f"{self._who}: {what}, and the pipeline was called with {prompts} prompts; give "
                "one for each, or a single one for all"
            )
        return [each[index] for index in self._indices(len(each))]

    def _indices(self, prompts: int) -> list[int]:
        """Return the index of each picture's prompt: pictures of one prompt are neighbours."""
        return [row * prompts // self.batch for row in range(self.batch)]

    def _fitted(self, slot: Slot, tensor: Any, texts: Sequence[str]) -> Tensor:
        """Return the tensor as the loop has it: of the same length, and dtype."""
        current = self._current[slot]
        if not self._backend.is_tensor(tensor) or tensor.shape[0] != len(texts):
            raise UnsupportedPipelineError(
                f"{self._kind}.encode_prompt makes no {slot.name} of one row for each prompt"
            )
        if tuple(tensor.shape[1:]) != tuple(current.shape[1:]):
            raise UnsupportedPipelineError(
                f"{self._who}: {slot.name} of {texts[0]!r} and its like have the shape "
                f"{tuple(tensor.shape[1:])}, and the loop works with {tuple(current.shape[1:])}; "
                "where prompts are not padded to one length, take prompts of as many tokens"
            )
        return self._placed(tensor, current)

    def _picked(self, tensor: Tensor, indices: Sequence[int]) -> Tensor:
        """Return the rows of these indices."""
        if list(indices) == list(range(tensor.shape[0])):
            return tensor
        return self._backend.ops.concat([tensor[index : index + 1] for index in indices])

    def _check_kept(self, returned: Mapping[str, Any]) -> None:
        """Refuse a prompt that needs another mask than the call's, where the loop keeps the call's
        mask."""
        for name in self._loop.kept:
            if "mask" not in name or not self._backend.is_tensor(returned.get(name)):
                continue
            mine, ops = self._step.in_loop(name), self._step.ops
            if mine is None:
                continue
            rows = Rows(self._step, name, mine).of("conditional", mine)
            called = ops.to_numpy(rows)
            other = ops.to_numpy(returned[name])
            if called.shape[1:] != other.shape[1:] or (called[:1] != other).any():
                raise UnsupportedPipelineError(
                    f"{self._who}: a prompt needs another {name} than the pipeline was called "
                    f"with, and {self._kind}'s loop does not take that back from a callback; take "
                    "prompts of as many tokens"
                )


def _others(rows: Sequence[_Row], prefix: str) -> dict[str, list[str]]:
    """Return what ``encode_prompt`` gets besides its first prompts."""
    names = dict.fromkeys(name for _, others in rows for name, _ in others)
    # What only others of the rows have is the first prompt, as encode_prompt has it.
    return {
        prefix + name: [dict(others).get(name, main) for main, others in rows] for name in names
    }


def _texts(called: Any) -> list[str] | None:
    if isinstance(called, str):
        return [called]
    if isinstance(called, list | tuple) and all(isinstance(text, str) for text in called):
        return list(called)
    return None


def _alike(one: Any, other: Any) -> bool:
    one, other = (np.asarray(array, np.float64) for array in (one, other))
    return bool(np.abs(one - other).max() <= _SAME * max(float(other.std()), 1e-6))
