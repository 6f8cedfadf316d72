"""Change the prompt during a run, or blend several prompts."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias

from unicb.callback import Callback
from unicb.callbacks._prompt_embeddings import named_embeddings
from unicb.callbacks._prompt_encoding import Encoded, Encoder
from unicb.callbacks._prompt_given import Embeddings, Given, Prompt, Texts, given_prompt
from unicb.callbacks._prompt_loop import PromptLoop, prompt_loop
from unicb.callbacks._prompt_rows import Rows
from unicb.checks import number, share, shown
from unicb.errors import UnsupportedPipelineError
from unicb.ops import Tensor
from unicb.pipelines import Part, PipelineFacts
from unicb.pipelines.tokenizers import lacks_tokenizer
from unicb.step import Step

if TYPE_CHECKING:
    from unicb import Target

#: Weights of the prompts at some progress; None while the call's own prompts hold.
_Weights: TypeAlias = tuple[float, ...] | None

#: Tolerance for rounding errors in progress and in sums of weights.
_NOTHING = 1e-9


@dataclass(frozen=True)
class _Wanted:
    """Hold which prompts are wanted, and when.

    Attributes:
        prompts: the prompts, as texts or embeddings.
        weights: a function of the progress that returns a weight for each prompt. The call's own
            prompt gets 1 minus their sum.
        starts: True if the pipeline has to be called with the first of ``prompts``.
        mixes: True if several prompts may have a weight at the same time.
    """

    prompts: tuple[Given, ...]
    weights: Callable[[float], _Weights]
    starts: bool
    mixes: bool


@dataclass
class _State:
    """``_State`` holds a run's embeddings of all prompts, those of the call last, and the weights
    that were applied last."""

    positive: list[Encoded] = field(default_factory=list)
    negative: list[Encoded] = field(default_factory=list)
    applied: tuple[_Weights, _Weights] = (None, None)


class _Prompts(Callback):
    """Write weighted sums of embeddings into the loop."""

    owns = ("prompt",)

    def __init__(self, positive: _Wanted, negative: _Wanted | None, partly: bool) -> None:
        self._positive, self._negative = positive, negative
        self._partly = partly

    def on_bind(self, target: Target) -> None:
        pipeline, facts = target.pipeline, target.facts
        name, mine = target.name, type(self).__name__
        if target.blocks is not None:
            raise UnsupportedPipelineError(
                f"{mine} cannot exchange a prompt of {name}: a block of it encodes its prompts, "
                "with arguments of its own; write embeddings in a callback of your own, whose "
                "tensors are prompt_embeds and what else bind() says there is"
            )
        if target.scheduled is not None:
            raise UnsupportedPipelineError(
                f"{mine} cannot exchange a prompt of {name}: its loop calls no callback, and takes "
                f"nothing back but {target.scheduled.latents}"
            )
        loop = prompt_loop(type(pipeline))
        self._check_encodes(pipeline, loop)
        if facts is not None and facts.listed:
            raise UnsupportedPipelineError(
                f"{mine} does not work on {name}: its embeddings are a list, each of its own length"
            )
        if loop.kept and not self._partly:
            raise UnsupportedPipelineError(
                f"{mine} cannot exchange all of a prompt of {name}: its loop does not take "
                f"{' and '.join(loop.kept)} back from a callback. With partly=True, that stays as "
                "the pipeline was called with"
            )
        masks = [slot.name for slot in loop.slots if "mask" in slot.name]
        if masks and self._positive.mixes:
            raise UnsupportedPipelineError(
                f"{mine} cannot mix prompts of {name}: there is nothing between two {masks[0]}s"
            )
        if self._negative is not None and not _takes_negative(loop, facts):
            raise UnsupportedPipelineError(
                f"{name} does not take the embeddings of its negative prompt back from a callback"
            )
        for wanted, negative in self._both():
            for prompt in wanted.prompts:
                if isinstance(prompt, Embeddings):
                    named_embeddings(prompt, loop, target.backend, name, negative=negative)

    def _both(self) -> list[tuple[_Wanted, bool]]:
        """Return what is wanted, each with True for negative prompts."""
        both = [(self._positive, False), (self._negative, True)]
        return [(wanted, negative) for wanted, negative in both if wanted is not None]

    def _check_encodes(self, pipeline: Any, loop: PromptLoop) -> None:
        """Raise UnsupportedPipelineError if a prompt is given as text and the pipeline cannot
        encode texts."""
        name, mine = type(pipeline).__name__, type(self).__name__
        texts = [
            (prompt, negative)
            for wanted, negative in self._both()
            for prompt in wanted.prompts
            if isinstance(prompt, Texts)
        ]
        if not texts:
            return
        if (lacks := _why_no_texts(pipeline)) is not None:
            raise UnsupportedPipelineError(
                f"{mine} encodes prompts, and this {name} was loaded without a {lacks}; give it "
                "embeddings in place of texts"
            )
        takes = {"prompt", *(parameter for call in loop.calls for parameter in call.parameters)}
        for prompt, negative in texts:
            for one in prompt.names[1:] if prompt.names[0] == "prompt" else prompt.names:
                full = f"negative_{one}" if negative and one != "prompt" else one
                if full not in takes:
                    raise UnsupportedPipelineError(
                        f"{mine} is given {prompt}, and encode_prompt of {name} takes no {full}"
                    )

    def on_step_end(self, step: Step) -> None:
        if step.index + 1 >= step.num_timesteps:
            return  # no step follows
        wanted = (
            self._positive.weights(step.progress),
            None if self._negative is None else self._negative.weights(step.progress),
        )
        state = step.run.state(self, lambda: self._encoded(step))
        if wanted != state.applied:
            state.applied = wanted
            self._write(step, state)

    def _encoded(self, step: Step) -> _State:
        encoder = Encoder(step, type(self).__name__)
        state = _State()
        started: list[_Weights] = [None, None]
        for wanted, negative in self._both():
            encoded = encoder.encode(wanted.prompts, negative)
            if wanted.starts:
                encoder.check_called_with(wanted.prompts[0], encoded[0], negative)
                started[negative] = wanted.weights(0.0)
            encoded.append(encoder.called(negative))
            if negative:
                state.negative = encoded
            else:
                state.positive = encoded
        state.applied = (started[0], started[1])
        if _why_no_texts(step.pipeline) is None:
            step.run.target.state(self, lambda: encoder.verify())
        return state

    def _write(self, step: Step, state: _State) -> None:
        backend, loop = step.run.target.backend, prompt_loop(type(step.pipeline))
        positive, negative = state.applied
        with backend.fork_rng():
            for slot in loop.slots:
                current = step.in_loop(slot.name)
                if current is None:
                    continue
                parts: dict[Part, Tensor] = {}
                if positive is not None:
                    parts["conditional"] = _sum(state.positive, slot.name, positive)
                    parts["perturbed"] = parts["conditional"]
                if negative is not None and slot.name in state.negative[-1]:
                    parts["unconditional"] = _sum(state.negative, slot.name, negative)
                    if slot.negative in loop.taken:
                        step.hand_back(slot.negative, parts["unconditional"])
                if parts:
                    rows = Rows(step, slot.name, current)
                    step.hand_back(slot.name, rows.put(backend, current, parts))


class PromptSchedule(_Prompts):
    """Exchange the prompt during the run: ``PromptSchedule([(0.0, "a dog"), (0.5, "a cat")])``.

    All prompts are encoded at the end of the first step, once, by the pipeline's own
    ``encode_prompt`` and with the arguments (``clip_skip``, ``max_sequence_length``, …) of the
    call; this does not change the random numbers of the run. So the first step uses the prompt that
    the pipeline was called with. If the schedule starts at 0.0, its first prompt has to be the
    call's; if it starts later, the call's prompt holds until then. Pooled embeddings change with
    the prompt.

    A prompt at ``progress`` is used from step ``ceil(num_timesteps * progress)`` on. Offloaded text
    encoders are loaded once more, while the denoiser is loaded, too.

    Args:
        schedule: pairs of a progress in 0..1, ascending, and a prompt: a text for all pictures of
            the batch, or a list with a text for each prompt of the call. With several images per
            prompt, all images of a prompt get the same text. ``prompt_2`` stays that of the call,
            unless a dict such as ``{"prompt": "a cat", "prompt_2": "an oil painting"}`` gives
            another. Or embeddings: what the pipeline's ``encode_prompt`` or compel returns, or a
            dict of tensors by diffusers' names (``prompt_embeds``, ``pooled_prompt_embeds``), with
            one row for all pictures, or one for each prompt of the call.
        interpolate: True: change from one prompt to the next gradually, by linear interpolation of
            their embeddings at each step; False: at once.
        negative: a schedule of negative prompts, in the same form. It changes nothing in a run
            without guidance.
        partly: True: accept a loop that does not take back all results of ``encode_prompt`` (such
            as FLUX's pooled embeddings); these stay those of the call. A prompt that needs another
            attention mask than the call's is refused all the same, in the first step.

    Raises:
        TypeError, ValueError: the schedule is empty, unsorted, or no list of such pairs. At the end
            of the first step: its lists do not fit the call's prompts, or its first prompt at 0.0
            is not the call's.
        UnsupportedPipelineError: from ``bind``: the loop does not take these embeddings back. From
            the first step: a prompt's embeddings differ in length from the call's.

    Example:
        >>> schedule = PromptSchedule([(0.0, "a red star"), (0.5, "a blue star")])
        >>> image = bind(pipe, schedule)("a red star")[0]
    """

    def __init__(
        self,
        schedule: Sequence[tuple[float, Prompt]],
        interpolate: bool = False,
        *,
        negative: Sequence[tuple[float, Prompt]] | None = None,
        partly: bool = False,
    ) -> None:
        positive = _Knots("schedule", schedule, interpolate)
        negatives = None if negative is None else _Knots("negative", negative, interpolate)
        super().__init__(
            positive.wanted(), None if negatives is None else negatives.wanted(), partly
        )


class PromptWeights(_Prompts):
    """Blend several prompts, with weights that may change from step to step.

    ``PromptWeights({"a dog": lambda progress: 1 - progress, "a cat": lambda progress: progress})``
    turns a dog into a cat. The weights are divided by their sum. As with :class:`PromptSchedule`,
    prompts are encoded at the end of the first step, which uses the prompt that the pipeline was
    called with.

    Args:
        weights: a dict from prompts to weights, or a list of ``(prompt, weight)`` pairs. Prompts
            are as for :class:`PromptSchedule`; a weight is a number, or a function of the progress
            in 0..1 that returns a number. Negative weights push away from a prompt.
        partly: as for :class:`PromptSchedule`.

    Raises:
        TypeError, ValueError: there is no prompt, or a weight is no finite number. In the run: a
            function returns no finite number, or the weights do not sum to more than 0.
        UnsupportedPipelineError: as from :class:`PromptSchedule`.

    Example:
        >>> turning = PromptWeights({"a dog": lambda p: 1 - p, "a cat": lambda p: p})
        >>> image = bind(pipe, turning)("a dog")[0]
    """

    def __init__(
        self,
        weights: Mapping[Any, float | Callable[[float], float]]
        | Sequence[tuple[Prompt, float | Callable[[float], float]]],
        *,
        partly: bool = False,
    ) -> None:
        pairs = [*weights.items()] if isinstance(weights, Mapping) else weights
        if isinstance(pairs, str) or not isinstance(pairs, Sequence):
            raise TypeError(
                f"PromptWeights takes a dict of prompts and weights, not {shown(weights)}"
            )
        if not pairs:
            raise ValueError("PromptWeights needs at least one prompt")
        self._weights = tuple(_weighted(pair) for pair in pairs)
        if not any(callable(weight) for _, weight in self._weights):
            self._shares(0.0)
        prompts = tuple(prompt for prompt, _ in self._weights)
        super().__init__(_Wanted(prompts, self._shares, False, len(prompts) > 1), None, partly)

    def _shares(self, progress: float) -> _Weights:
        given = [
            number(f"the weight of {prompt}", weight(progress) if callable(weight) else weight)
            for prompt, weight in self._weights
        ]
        total = sum(given)
        if total <= 0:
            each = zip(self._weights, given, strict=True)
            raise ValueError(
                f"the weights of a blend must sum to more than 0, not {total:g} "
                f"({', '.join(f'{prompt}: {w:g}' for (prompt, _), w in each)})"
            )
        return tuple(weight / total for weight in given)


def _weighted(pair: Any) -> tuple[Given, float | Callable[[float], float]]:
    if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
        raise TypeError(
            "PromptWeights takes a dict of prompts and weights, or a list of pairs like "
            f"('a cat', 0.5), not one of {shown(pair)}"
        )
    prompt, weight = given_prompt("PromptWeights: a prompt", pair[0]), pair[1]
    if not callable(weight):
        number(f"the weight of {prompt}", weight)
    return prompt, weight


class _Knots:
    """``_Knots`` is a checked schedule of prompts, which returns weights."""

    def __init__(self, name: str, schedule: Any, interpolate: bool) -> None:
        if isinstance(schedule, str | Mapping) or not isinstance(schedule, Sequence):
            raise TypeError(
                f"{name} must be a list of pairs like (0.5, 'a cat'), not {shown(schedule)}"
            )
        if not schedule:
            raise ValueError(f"{name} is empty; it needs at least one pair like (0.5, 'a cat')")
        pairs = [_knot(name, item) for item in schedule]
        self.at = [progress for progress, _ in pairs]
        for before, after in pairwise(self.at):
            if after <= before:
                raise ValueError(
                    f"{name} must be sorted by progress, and {after:g} follows {before:g}"
                )
        self.prompts = tuple(prompt for _, prompt in pairs)
        texts = [prompt for prompt in self.prompts if isinstance(prompt, Texts)]
        lengths = {length for prompt in texts for length in prompt.lengths}
        if len(lengths) > 1:
            raise ValueError(
                f"{name} has lists of {' and '.join(map(str, sorted(lengths)))} prompts; all must "
                "have one for each prompt that the pipeline is called with"
            )
        self.interpolate = bool(interpolate)

    def wanted(self) -> _Wanted:
        return _Wanted(self.prompts, self.weights, self.at[0] == 0.0, self.interpolate)

    def weights(self, progress: float) -> _Weights:
        """Return the weights of the prompts at this progress; the call's own prompt has 1 minus
        their sum."""
        last = bisect_right(self.at, progress + _NOTHING) - 1
        found = [0.0] * len(self.at)
        if last < 0 and not self.interpolate:
            return None
        share = 0.0
        if self.interpolate and last + 1 < len(self.at):
            start = self.at[last] if last >= 0 else 0.0
            share = max(progress - start, 0.0) / (self.at[last + 1] - start)
            found[last + 1] = share
        if last >= 0:
            found[last] = 1.0 - share
        return tuple(found)


def _knot(name: str, item: Any) -> tuple[float, Given]:
    if isinstance(item, str) or not isinstance(item, Sequence) or len(item) != 2:
        raise TypeError(f"{name} must consist of pairs like (0.5, 'a cat'), not {shown(item)}")
    progress, prompt = item
    if isinstance(progress, str):
        raise TypeError(
            f"{name}: a pair is the progress and then the prompt, as in (0.5, 'a cat'), not "
            f"{shown(item)}"
        )
    progress = share(f"{name}: a progress", progress, kind="a number in 0..1")
    what = f"{name}: the prompt at {progress:g}"
    return progress, given_prompt(what, prompt, negative=name == "negative")


def _why_no_texts(pipeline: Any) -> str | None:
    """Return which part the pipeline lacks to encode texts; None if it can."""
    encoders = [part for part in vars(pipeline) if part.startswith("text_encoder")]
    if encoders and all(getattr(pipeline, part) is None for part in encoders):
        return "text encoder"
    return "tokenizer" if lacks_tokenizer(pipeline) else None


def _takes_negative(loop: PromptLoop, facts: PipelineFacts | None) -> bool:
    """Return whether the loop takes negative embeddings back, as a block of rows or as a tensor of
    their own."""
    if facts is not None and facts.cfg == "batch":
        return True
    return any(slot.negative in loop.taken for slot in loop.slots)


def _sum(encoded: Sequence[Encoded], name: str, weights: Sequence[float]) -> Tensor:
    """Return the weighted sum of embeddings; the last, the call's own, weigh 1 minus the sum."""
    every = [*weights, 1.0 - sum(weights)]
    terms = [
        (tensors[name], weight)
        for tensors, weight in zip(encoded, every, strict=True)
        if abs(weight) > _NOTHING
    ]
    if len(terms) == 1:
        return terms[0][0]
    total = terms[0][0] * terms[0][1]
    for tensor, weight in terms[1:]:
        total = total + tensor * weight
    return total
