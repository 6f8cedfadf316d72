"""Callbacks in company: what each promises, judged by a run's own evidence, on any framework.

A run is watched at every place between its callbacks and below the denoiser. From that follows
what each callback was given, what it made of it, and how the loop went on.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import unicb
from unicb import Binding, Callback, Step, bind
from unicb.latents import find_format, to_rgb
from unicb.latents.denoised import DenoisedEstimate
from unicb.pipelines import facts_for
from unicb.testing import Harness

Array = npt.NDArray[Any]

#: Steps of a run, and where the callbacks below do what they do.
STEPS, STOP, FAILS = 10, 4, 3
CUT, FROM, TO = 0.2, 0.2, 0.4
SCALES = [(0.0, 1.0), (0.2, 0.6), (0.6, 0.1)]
PROMPTS = ["a red star", "a white ring"]
OTHER, MORE = "a green cross", ["a blue star", "a red star"]


class Stage(ABC):
    """A pipeline with everything that callbacks ask for, and what a test has to know of it.

    Attributes:
        pipe: makes two pictures, ``PROMPTS``; its IP-Adapter has scale 1.
        guidance: the scale that it is called with.
        within: how far single steps may be from the same in float64, in the latents' units.
    """

    harness: Harness
    pipe: Any
    steps: int = STEPS
    guidance: float = 5.0
    within: float = 1e-5

    @abstractmethod
    def call(self, **keywords: Any) -> Array:
        """Of the pipeline, with ``PROMPTS`` and ``steps``; the final latents."""

    @abstractmethod
    def embedding(self, text: str) -> Array:
        """What the pipeline makes of one prompt."""

    @abstractmethod
    def advance(self, x: Array, noise: Array, index: int) -> Array:
        """The scheduler's step number ``index``, in float64."""

    def denoised(self, start: Array, end: Array, index: int) -> Array | None:
        """What step ``index`` took the finished latents to be; None where that is unknown."""
        return None

    def scales(self) -> list[Any]:
        """Those of the IP-Adapter's attentions."""
        found = self.pipe.unet.attn_processors.values()
        return [deepcopy(p.scale) for p in found if hasattr(p, "to_k_ip")]

    def left(self) -> object:
        """All that a run may leave on the pipeline."""
        return self.harness.traces(self.pipe), self.scales()


@dataclass(frozen=True)
class Denoised:
    """One call of the denoiser."""

    sample: Array
    embeds: Array
    scales: list[Any]
    out: Array


@dataclass
class Seen(Callback):
    """The latents at one place between two callbacks, step by step."""

    latents: list[Array] = field(default_factory=list)

    tensors = ("latents",)

    def on_step_end(self, step: Step) -> None:
        self.latents.append(step.ops.to_numpy(step["latents"]))


class Member:
    """A callback, and what it promises. Each promise here is that of one which does nothing."""

    #: What it decides on alone.
    decides = ""

    def __init__(self, callback: Any) -> None:
        self.callback = callback

    def written(self, x: Array, index: int, steps: int) -> Array | None:
        """What it makes of the latents at the end of a step, in float64; None: the same bits."""
        return None

    def guidance(self, index: int, stage: Stage) -> float | None:
        """The scale that step ``index`` is guided with; None for half of the work."""
        return stage.guidance

    def combined(self, u: Array, c: Array, guidance: float) -> Array:
        """What guidance of this scale makes of the two predictions, in float64."""
        return np.asarray(u + guidance * (c - u))

    def scale(self, index: int, stage: Stage) -> float:
        """Of the IP-Adapter, in step ``index``."""
        return 1.0

    def embeds(self, index: int, stage: Stage) -> Array:
        """Of the prompts, in step ``index``."""
        return np.stack([stage.embedding(text) for text in PROMPTS])

    def last(self) -> int | None:
        """Index of the last step, where it stops the run."""
        return None

    def steps_told(self) -> int | None:
        """Of how many step ends it has something to show."""
        return None

    def check(self, company: Company, place: int) -> None:
        """That it shows what is promised of the run, standing at this place in it."""


class Function(Member):
    """A plain function that changes the latents."""

    def __init__(self, number: int) -> None:
        self.number = number

        def change(pipe: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            return {"latents": tensors["latents"] * 1.05 if number else tensors["latents"] + 0.1}

        super().__init__(change)

    def written(self, x: Array, index: int, steps: int) -> Array:
        return x * 1.05 if self.number else x + 0.1


class Correction(Member):
    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(
            unicb.LatentCorrection(clamp=1.5) if number else unicb.LatentCorrection(centre=0.5)
        )

    def written(self, x: Array, index: int, steps: int) -> Array:
        if not self.number:
            return np.asarray(x - 0.5 * x.mean(axis=(2, 3), keepdims=True))
        bound = 1.5 * np.sqrt((x**2).mean(axis=(1, 2, 3), keepdims=True))
        over = np.maximum(np.abs(x) - 0.875 * bound, 0)
        bent = np.minimum(np.abs(x), 0.875 * bound) + over / (1 + over / (0.125 * bound))
        return np.asarray(np.sign(x) * bent)


class Cutoff(Member):
    decides = "guidance"

    def __init__(self) -> None:
        super().__init__(unicb.CFGCutoff(CUT))

    def guidance(self, index: int, stage: Stage) -> float | None:
        return stage.guidance if index <= int(stage.steps * CUT) else None


class Interval(Member):
    decides = "guidance"

    def __init__(self) -> None:
        super().__init__(unicb.GuidanceInterval(FROM, TO))

    def guidance(self, index: int, stage: Stage) -> float | None:
        guided = int(stage.steps * FROM) <= index <= int(stage.steps * TO)
        return stage.guidance if guided else None


class Guidance(Member):
    """Other scales, and none in the last steps."""

    decides = "guidance"

    def __init__(self) -> None:
        super().__init__(unicb.GuidanceSchedule([(0.0, 3.0), (FROM, 2.0), (TO, 0.0)]))

    def guidance(self, index: int, stage: Stage) -> float | None:
        done = index / stage.steps
        return 3.0 if done < FROM else 2.0 if done < TO else None


class Rule(Member):
    """A formula of its own, other scales, and none in the last steps."""

    decides = "guidance"

    def __init__(self) -> None:
        class GuidanceRule(unicb.GuidanceRule):
            def combine(self, unconditional: Any, conditional: Any, scale: Any, step: Any) -> Any:
                guided = unconditional + (conditional - unconditional) * scale
                return guided - conditional * 0.1

        super().__init__(GuidanceRule([(0.0, 3.0), (FROM, 2.0)], interval=(0.0, TO)))

    def guidance(self, index: int, stage: Stage) -> float | None:
        if index > int(stage.steps * TO):
            return None
        return 3.0 if index / stage.steps < FROM else 2.0

    def combined(self, u: Array, c: Array, guidance: float) -> Array:
        return np.asarray(u + guidance * (c - u) - 0.1 * c)


class Stops(Member):
    def __init__(self, number: int) -> None:
        self.index = STOP + number
        super().__init__(unicb.Interrupt(self.index, picture="latents"))

    def last(self) -> int:
        return self.index


class AdapterScale(Member):
    decides = "ip_adapter_scale"

    def __init__(self) -> None:
        super().__init__(unicb.IPAdapterScale(SCALES))

    def scale(self, index: int, stage: Stage) -> float:
        return [value for start, value in SCALES if start <= index / stage.steps][-1]


class AdapterCutoff(Member):
    decides = "ip_adapter_scale"

    def __init__(self) -> None:
        super().__init__(unicb.IPAdapterCutoff(CUT))

    def scale(self, index: int, stage: Stage) -> float:
        return 1.0 if index <= int(stage.steps * CUT) else 0.0


class Schedule(Member):
    decides = "prompt"

    def __init__(self) -> None:
        super().__init__(unicb.PromptSchedule([(FROM, OTHER), (TO, MORE)]))

    def embeds(self, index: int, stage: Stage) -> Array:
        done = index / stage.steps
        texts = PROMPTS if done < FROM else [OTHER] * 2 if done < TO else MORE
        return np.stack([stage.embedding(text) for text in texts])


class Weights(Member):
    decides = "prompt"

    def __init__(self) -> None:
        weights: dict[str, Any] = {PROMPTS[0]: 1.0, OTHER: lambda progress: 4 * progress}
        super().__init__(unicb.PromptWeights(weights))

    def embeds(self, index: int, stage: Stage) -> Array:
        if index == 0:
            return super().embeds(index, stage)
        share = 4 * index / stage.steps
        one, other = stage.embedding(PROMPTS[0]), stage.embedding(OTHER)
        return np.stack([(one + share * other) / (1 + share)] * 2)


class Shows(Member):
    """Previews, denoised where they can be."""

    def __init__(self) -> None:
        self.frames: list[unicb.PreviewFrame] = []
        super().__init__(unicb.Preview(self.frames))

    def steps_told(self) -> int:
        return len(self.frames)

    def check(self, company: Company, place: int) -> None:
        pipe, harness = company.stage.pipe, company.stage.harness
        form = find_format(pipe, facts_for(pipe))
        seen = company.seen[place].latents
        assert [frame.step for frame in self.frames] == list(range(len(seen)))
        for index, (frame, latents) in enumerate(zip(self.frames, seen, strict=True)):
            denoised = None
            if 0 < index < company.stage.steps - 1:
                denoised = company.denoised(index)
            source = "exact" if denoised is not None else self._rest(company, index)
            assert frame.source == source
            shown = latents if denoised is None else denoised.astype(np.float32)
            tensor = harness.tensor(shown, str(shown.dtype))
            expected = to_rgb(tensor, form, harness.backend.ops).pixels.astype(int)
            shown = np.stack([np.asarray(image) for image in frame.images])
            assert np.abs(shown - expected).max() <= 1
            assert frame.num_timesteps == company.stage.steps

    def _rest(self, company: Company, index: int) -> str:
        """The last picture is of the finished latents, which are denoised."""
        known = DenoisedEstimate.kind_of(company.stage.pipe.scheduler) is not None
        return "exact" if known and index == company.stage.steps - 1 else "noisy"


class Records(Member):
    def __init__(self, folder: Path) -> None:
        self.path = folder / "run.npz"
        super().__init__(unicb.Trajectory(self.path))

    def steps_told(self) -> int:
        return len(unicb.load_trajectory(self.path).steps)

    def check(self, company: Company, place: int) -> None:
        found, seen = unicb.load_trajectory(self.path), company.seen[place].latents
        np.testing.assert_array_equal(found.latents, np.stack(seen))
        assert found.steps.tolist() == list(range(len(seen)))
        assert found.num_timesteps == company.stage.steps


class Times(Member):
    def __init__(self) -> None:
        self.timer = unicb.StepTimer()
        super().__init__(self.timer)

    def steps_told(self) -> int:
        return 0 if self.timer.times is None else 1 + len(self.timer.times.seconds)

    def check(self, company: Company, place: int) -> None:
        assert self.steps_told() == len(company.calls)
        assert self.timer.times is not None
        assert self.timer.times.first > 0


class Progresses(Member):
    def __init__(self) -> None:
        self.states: list[Any] = []
        super().__init__(unicb.Progress(self.states.append))

    def steps_told(self) -> int:
        return len(self.states)

    def check(self, company: Company, place: int) -> None:
        assert [state.step for state in self.states] == list(range(len(company.calls)))
        assert {state.num_timesteps for state in self.states} == {company.stage.steps}


#: For each public callback, and a plain function: makes one, as the first or second of a pair.
MEMBERS: dict[str, Callable[[int, Path], Member]] = {
    "CFGCutoff": lambda number, folder: Cutoff(),
    "GuidanceInterval": lambda number, folder: Interval(),
    "GuidanceRule": lambda number, folder: Rule(),
    "GuidanceSchedule": lambda number, folder: Guidance(),
    "IPAdapterCutoff": lambda number, folder: AdapterCutoff(),
    "IPAdapterScale": lambda number, folder: AdapterScale(),
    "Interrupt": lambda number, folder: Stops(number),
    "LatentCorrection": lambda number, folder: Correction(number),
    "NaNGuard": lambda number, folder: Member(unicb.NaNGuard()),
    "Preview": lambda number, folder: Shows(),
    "Progress": lambda number, folder: Progresses(),
    "PromptSchedule": lambda number, folder: Schedule(),
    "PromptWeights": lambda number, folder: Weights(),
    "StepTimer": lambda number, folder: Times(),
    "Trajectory": lambda number, folder: Records(folder / str(number)),
    "a function": lambda number, folder: Function(number),
}

#: The classes that cannot be in one binding, by what only one of them can decide on.
RIVALS = {
    "guidance": {"CFGCutoff", "GuidanceInterval", "GuidanceRule", "GuidanceSchedule"},
    "ip_adapter_scale": {"IPAdapterScale", "IPAdapterCutoff"},
    "prompt": {"PromptSchedule", "PromptWeights"},
}


def public_callbacks() -> set[str]:
    """Names of all callback classes that unicb exports. Of rules, the class that they derive from:
    they have their formulas, and nothing else of their own."""
    exported = {name: getattr(unicb, name) for name in unicb.__all__}
    return {
        name
        for name, thing in exported.items()
        if isinstance(thing, type) and issubclass(thing, Callback) and thing is not Callback
        if thing is unicb.GuidanceRule or not issubclass(thing, unicb.GuidanceRule)
    }


def rivalry(*names: str) -> str | None:
    """What two callbacks would both decide on."""
    for thing, rivals in RIVALS.items():
        if rivals.issuperset(names):
            return thing
    return None


@dataclass
class Company:
    """Callbacks in their order, bound to a pipeline, and what is seen of their run.

    Attributes:
        seen: the latents at the end of each step: before the first callback, between each two,
            and behind the last.
        calls: of the denoiser.
    """

    stage: Stage
    members: Sequence[Member]
    before: Sequence[Callback] = ()

    def __post_init__(self) -> None:
        self.seen = [Seen() for _ in range(len(self.members) + 1)]
        self.calls: list[Denoised] = []
        callbacks: list[Any] = [*self.before, self.seen[0]]
        for member, behind in zip(self.members, self.seen[1:], strict=True):
            callbacks += [member.callback, behind]
        self.binding: Binding = bind(self.stage.pipe, *callbacks)

    def run(self) -> Array:
        """The final latents. A warning is an error."""
        to_numpy = self.stage.harness.backend.ops.to_numpy

        def around(call: Callable[..., Any], args: tuple[Any, ...], kw: dict[str, Any]) -> Any:
            scales = self.stage.scales()
            out = call(*args, **kw)
            noise = out if self.stage.harness.backend.is_tensor(out) else out[0]
            embeds = to_numpy(kw["encoder_hidden_states"])
            self.calls.append(Denoised(to_numpy(args[0]), embeds, scales, to_numpy(noise)))
            return out

        undo = self.stage.harness.spy(self.stage.pipe, around)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                return self.stage.call(**self.binding)
        finally:
            undo()

    def check(self, steps: int) -> None:
        """That each has kept its promises in a run that ended after so many steps."""
        for place, member in enumerate(self.members):
            mine, next_ = self.seen[place].latents, self.seen[place + 1].latents
            assert len(mine) == len(next_) == steps
            member.check(self, place)
            for index, (x, y) in enumerate(zip(mine, next_, strict=True)):
                expected = member.written(x.astype(np.float64), index, self.stage.steps)
                if expected is None:
                    np.testing.assert_array_equal(y, x)
                else:
                    assert not np.array_equal(y, x)
                    np.testing.assert_allclose(y, expected, rtol=0, atol=self.stage.within)
        assert len(self.calls) == steps
        for index, call in enumerate(self.calls):
            self._check_step(index, call)

    def denoised(self, index: int) -> Array | None:
        """What the model saw coming in step ``index``, from its second on."""
        start, end = self.seen[-1].latents[index - 1], self.seen[0].latents[index]
        return self.stage.denoised(start.astype(np.float64), end.astype(np.float64), index)

    def _check_step(self, index: int, call: Denoised) -> None:
        """It began with what the callbacks left, and was made as they decided."""
        stage, rows = self.stage, len(PROMPTS)
        guide = self._decider("guidance")
        guidance = guide.guidance(index, stage)
        assert len(call.sample) == rows * (1 if guidance is None else 2)
        x = call.sample[-rows:]
        np.testing.assert_array_equal(call.sample[:rows], x)
        if index > 0:
            np.testing.assert_array_equal(x, self.seen[-1].latents[index - 1])
        conditional = call.embeds[-rows:]
        expected = self._decider("prompt").embeds(index, stage)
        np.testing.assert_allclose(conditional, expected, rtol=0, atol=1e-5)
        if guidance is not None:
            nothing = np.stack([stage.embedding("")] * rows)
            np.testing.assert_allclose(call.embeds[:rows], nothing, rtol=0, atol=1e-5)
        scale = self._decider("ip_adapter_scale").scale(index, stage)
        assert {value for each in call.scales for value in each} == {scale}
        noise = call.out[-rows:].astype(np.float64)
        if guidance is not None:
            unconditional = call.out[:rows].astype(np.float64)
            noise = guide.combined(unconditional, noise, guidance)
        expected = stage.advance(x.astype(np.float64), noise, index)
        made = self.seen[0].latents[index]
        np.testing.assert_allclose(made, expected, rtol=0, atol=stage.within)

    def _decider(self, thing: str) -> Member:
        found = [member for member in self.members if member.decides == thing]
        return found[0] if found else Member(None)
