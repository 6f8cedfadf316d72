"""Encode prompts while a loop runs, as that call of the pipeline would have encoded them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from unicb.backend import Backend
from unicb.callbacks._prompt_embeddings import named_embeddings
from unicb.callbacks._prompt_given import Embeddings, Given, Texts
from unicb.callbacks._prompt_loop import PromptLoop, Slot, prompt_loop
from unicb.callbacks._prompt_pictures import IMAGES, Pictures, further_texts, texts_of
from unicb.callbacks._prompt_rows import Rows
from unicb.errors import UnsupportedPipelineError
from unicb.ops import Tensor
from unicb.step import Step

#: The embeddings of one prompt, by the loop's names, with one row for each picture.
Encoded: TypeAlias = Mapping[str, Tensor]

#: How far the loop's embeddings may be from those of the same prompts encoded again, in their
#: standard deviations: batches of another size may differ by bfloat16's rounding.
_SAME = 0.05


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
        self._locals = step.run.loop_locals([*needed, *IMAGES, "negative_prompt"])
        tensors = ((slot, step.in_loop(slot.name)) for slot in self._loop.slots)
        self._current = {slot: tensor for slot, tensor in tensors if tensor is not None}
        self._rows = {slot: Rows(step, slot.name, t) for slot, t in self._current.items()}
        if not self._current:
            raise UnsupportedPipelineError(f"{self._kind}'s loop has no prompt embeddings")
        batch = next(iter(self._rows.values())).batch
        self._pictures = Pictures(step.pipeline, self._locals, batch, who)

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
        texts = self._pictures.called_texts(call, negative)
        if texts is None:
            return
        mine, theirs = (self._pictures.rows(call, each, negative) for each in (prompt, texts))
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
            rows = [self._pictures.rows(call, prompt, negative) for prompt, _ in texts]
            unique = list(dict.fromkeys(row for each in rows for row in each))
            mains = [main for main, _ in unique]
            with self._backend.fork_rng():
                returned = call.encode(
                    self._step.pipeline,
                    self._locals,
                    mains,
                    mains if as_negative else None,
                    further_texts(unique, "negative_" if as_negative else ""),
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
            rows = self._pictures.spread(range(mine[0]), f"{slot.result} of {mine[0]} rows")
            found[slot.name] = self._picked(self._placed(tensor, current), rows)
        return found

    def _placed(self, tensor: Tensor, like: Tensor) -> Tensor:
        """Return the tensor with the dtype and on the device of another."""
        places = [(x.dtype, str(getattr(x, "device", ""))) for x in (tensor, like)]
        if places[0] == places[1]:
            return tensor
        return self._step.ops.from_numpy(self._step.ops.to_numpy(tensor), like)

    def verify(self) -> None:
        """Check that the loop works with what ``encode_prompt`` returns.

        Raises:
            UnsupportedPipelineError: encoded again, the call's own prompts are something else.
        """
        for index, call in enumerate(self._loop.calls):
            others = call.original(self._step.pipeline, self._locals)
            texts = texts_of(others.pop(call.main, None))
            if texts is None:
                return  # it was called with embeddings, or with a schedule of its own
            with self._backend.fork_rng():
                returned = call.encode(self._step.pipeline, self._locals, texts, others=others)
                for slot in self._slots_of(index):
                    tensor = self._fitted(slot, returned.get(slot.result), texts)
                    picked = self._picked(tensor, self._pictures.indices(len(texts)))
                    mine = self._rows[slot].of("conditional", self._current[slot])
                    if not _alike(*map(self._step.ops.to_numpy, (picked, mine))):
                        raise UnsupportedPipelineError(
                            f"{self._who} cannot exchange the prompt of this {self._kind}: its "
                            f"loop works with other {slot.name} than its encode_prompt makes of "
                            "the prompt that it was called with"
                        )

    def _slots_of(self, call: int) -> list[Slot]:
        return [slot for slot in self._current if slot.call == call]

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


def _alike(one: Any, other: Any) -> bool:
    one, other = (np.asarray(array, np.float64) for array in (one, other))
    return bool(np.abs(one - other).max() <= _SAME * max(float(other.std()), 1e-6))
