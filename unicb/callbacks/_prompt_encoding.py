"""Encode prompts while a loop runs, as that call of the pipeline would have encoded them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from unicb.backend import Backend
from unicb.callbacks._prompt_loop import PromptLoop, Slot, prompt_loop
from unicb.callbacks._prompt_rows import Rows
from unicb.errors import UnsupportedPipelineError
from unicb.ops import Tensor
from unicb.step import Step

#: One text for all pictures, or one for each of the prompts that the pipeline is called with.
Prompt: TypeAlias = str | Sequence[str]
#: The embeddings of one prompt, by the loop's names, with one row for each picture.
Encoded: TypeAlias = Mapping[str, Tensor]

#: How far the loop's embeddings may be from those of the same prompts encoded again, in their
#: standard deviations: batches of another size may differ by bfloat16's rounding.
_SAME = 0.05
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

    def check_called_with(self, prompt: Prompt, negative: bool = False) -> None:
        """Check that ``prompt`` is what the pipeline was called with, as far as that is known."""
        if negative:
            called = self._locals.get("negative_prompt") or ""
        else:
            call = self._loop.calls[0]
            called = call.original(self._step.pipeline, self._locals).get(call.main)
        texts = _texts(called)
        if texts is None or self._spread(texts) == self._spread(prompt):
            return
        what = "negative prompt" if negative else "prompt"
        raise ValueError(
            f"{self._who}: the schedule starts at 0.0 with {prompt!r}, and the pipeline was called "
            f"with the {what} {called!r}, which is what the first step was made with. Call it with "
            "the schedule's first one"
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

    def encode(self, prompts: Sequence[Prompt], negative: bool = False) -> list[Encoded]:
        """Encode the prompts, or prompts to be used as negative ones."""
        texts = [self._spread(prompt) for prompt in prompts]
        unique = list(dict.fromkeys(text for rows in texts for text in rows))
        found: list[dict[str, Tensor]] = [{} for _ in prompts]
        for index, call in enumerate(self._loop.calls):
            as_negative = negative and "negative_prompt" in call.parameters
            with self._backend.fork_rng():
                returned = call.encode(
                    self._step.pipeline, self._locals, unique, unique if as_negative else None
                )
                if not negative:
                    self._check_kept(returned)
                for slot in self._slots_of(index):
                    tensor = returned.get(slot.negative if as_negative else slot.result)
                    tensor = self._fitted(slot, tensor, unique)
                    for rows, made in zip(texts, found, strict=True):
                        made[slot.name] = self._picked(tensor, [unique.index(t) for t in rows])
        return [*found]

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

    def _spread(self, prompt: Prompt) -> list[str]:
        """Return one text for each picture."""
        texts = [prompt] if isinstance(prompt, str) else list(prompt)
        if len(texts) == 1:
            return texts * self.batch
        if len(texts) == self.batch:
            return texts
        images = [self._locals[name] for name in _IMAGES if self._locals.get(name)]
        prompts = self.batch // (images[0] if images else 1)
        if len(texts) != prompts:
            raise ValueError(
                f"{self._who}: a list of {len(texts)} prompts, and the pipeline was called with "
                f"{prompts}; give one for each, or a single text for all"
            )
        return [texts[index] for index in self._indices(len(texts))]

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
        if tensor.dtype != current.dtype:
            ops = self._step.ops
            tensor = ops.from_numpy(ops.to_numpy(tensor), current)
        return tensor

    def _picked(self, tensor: Tensor, indices: Sequence[int]) -> Tensor:
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


def _texts(called: Any) -> list[str] | None:
    if isinstance(called, str):
        return [called]
    if isinstance(called, list | tuple) and all(isinstance(text, str) for text in called):
        return list(called)
    return None


def _alike(one: Any, other: Any) -> bool:
    one, other = (np.asarray(array, np.float64) for array in (one, other))
    return bool(np.abs(one - other).max() <= _SAME * max(float(other.std()), 1e-6))
