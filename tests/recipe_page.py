"""The blocks of docs/recipes.md, run on a pipeline, and what each has to have done.

What is asked is the same on every framework: ``Ran`` has what its tests know of theirs.
"""

from __future__ import annotations

import csv
import itertools
import re
import struct
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pytest

from unicb import Callback, CFGCutoff, Interrupt, Run, Step, Trajectory, bind, load_trajectory

PAGE = Path(__file__).parents[1] / "docs" / "recipes.md"
STEPS = 20
#: Of 16 steps: the first and the last eight are computed again.
SPARED = 7
FIGURES = ("mean", "std", "largest")

Array = npt.NDArray[Any]


class WandbRun:
    """As wandb documents the object that its ``init`` returns: a context, with ``log(data, step)``,
    whose steps may not decrease."""

    def __init__(self) -> None:
        self.logged: list[tuple[dict[str, float], int]] = []
        self.is_finished = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.is_finished = True

    def log(self, data: dict[str, float], step: int) -> None:
        assert not self.is_finished
        assert not self.logged or step >= self.logged[-1][1]
        self.logged.append((data, step))


class Wandb(ModuleType):
    """In place of wandb."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.runs: list[WandbRun] = []

    def init(self, project: str, mode: str) -> WandbRun:
        assert mode == "offline"
        self.runs.append(WandbRun())
        return self.runs[-1]


@dataclass
class Ran:
    """The page's blocks after they were run.

    Attributes:
        names: what they have defined.
        folder: where they ran.
        wandb: what stood in wandb's place.
        latents: calls a pipeline or a binding with these arguments beside ``names["same"]``;
            gives the finished latents, on the host.
    """

    names: dict[str, Any] = field(repr=False)
    folder: Path
    wandb: Wandb
    latents: Callable[..., Array] = field(repr=False)

    @cached_property
    def plain(self) -> list[Array]:
        """The latents of each step of a run with nothing else."""
        spy = Spy()
        self.run(spy)
        return spy.latents

    @property
    def pipe(self) -> Any:
        return self.names["pipe"]

    def run(self, *callbacks: Any, pipe: Any = None, **arguments: Any) -> Array:
        """The latents of a run with these callbacks."""
        return self.latents(bind(self.pipe if pipe is None else pipe, *callbacks), **arguments)


def run_page(
    pipe: Any, folder: Path, latents: Callable[..., Array], same: dict[str, Any] | None = None
) -> Ran:
    """Run the page's blocks in order; without the first, if ``same`` is given in its place."""
    names: dict[str, Any] = {"pipe": pipe}
    first, *blocks = re.findall(
        r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    assert len(blocks) == 9
    if same is None:
        blocks.insert(0, first)
    else:
        names["same"] = same
    wandb = Wandb()
    with chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "wandb", wandb)
        for block in blocks:
            exec(compile(block, str(PAGE), "exec"), names)

    def call(called: Any, **arguments: Any) -> Array:
        return latents(called, **{**names["same"], **arguments})

    return Ran(names, folder, wandb, call)


def finished_by(harness: Any) -> Callable[..., Array]:
    """What calls a pipeline of a framework, or a binding, for its latents: from the same random
    numbers each time."""

    def call(called: Any, **arguments: Any) -> Array:
        own = {"generator": harness.generator(), "output_type": "latent"}
        latents: Array = harness.backend.ops.to_numpy(called(**arguments, **own)[0])
        return latents.copy()

    return call


class Spy(Callback):
    """Notes the latents and the denoised latents of every step; fails after one."""

    tensors = ("latents",)

    def __init__(self, fails_at: int = -1) -> None:
        self.latents: list[Array] = []
        self.denoised: list[Array | None] = []
        self.fails_at = fails_at

    def on_step_end(self, step: Step) -> None:
        self.latents.append(step.ops.to_numpy(step["latents"]).copy())
        denoised = step.denoised()
        self.denoised.append(None if denoised is None else step.ops.to_numpy(denoised).copy())
        if step.index == self.fails_at:
            raise RuntimeError("the spy is caught")


class CountCalls(Callback):
    """Counts the run's own calls of its models."""

    def __init__(self) -> None:
        self.calls = 0

    def before_first_step(self, step: Step) -> None:
        step.run.around_models(self._count)

    def _count(self, model: Any, call: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.calls += 1
        return call(*args, **kwargs)

    def on_step_end(self, step: Step) -> None:
        pass


class Outcomes(Callback):
    """Notes how its runs have ended."""

    def __init__(self) -> None:
        self.outcomes: list[str | None] = []

    def on_step_end(self, step: Step) -> None:
        pass

    def on_run_end(self, run: Run) -> None:
        self.outcomes.append(run.outcome)


def check_early_stop(ran: Ran, **arguments: Any) -> None:
    spy, outcome = Spy(), Outcomes()
    ran.run(spy, **arguments)
    x0 = [found for found in spy.denoised if found is not None]
    missing = STEPS - len(x0)
    changes = [
        np.max(
            np.linalg.norm((b - a).reshape(len(b), -1), axis=1)
            / np.linalg.norm(b.reshape(len(b), -1), axis=1)
        )
        for a, b in itertools.pairwise(x0)
    ]
    share = float(np.median(changes)) * 1.0001
    last = missing + 1 + next(i for i, change in enumerate(changes) if change < share)
    assert missing < last < STEPS - 1
    stop = ran.names["StopWhenSettled"]
    callbacks = bind(ran.pipe, stop(share), outcome)
    picture = ran.latents(callbacks, **arguments)
    assert (callbacks.step, outcome.outcomes) == (last, ["interrupted"])
    np.testing.assert_allclose(picture, spy.denoised[last], atol=1e-5)
    ran.run(stop(0.0), outcome, **arguments)
    assert outcome.outcomes[1:] == ["finished"]


def figures(latents: list[Array]) -> list[list[float]]:
    return [[float(x.mean()), float(x.std()), float(abs(x).max())] for x in latents]


def check_csv(ran: Ran) -> None:
    with open(ran.folder / "steps.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == list(range(STEPS))
    seconds = [float(row["seconds"]) for row in rows]
    assert seconds == sorted(seconds)
    assert seconds[0] > 0
    found = [[float(row[name]) for name in FIGURES] for row in rows]
    np.testing.assert_allclose(found, figures(ran.plain), rtol=1e-5, atol=1e-6)


def check_log_of_a_run_that_fails(ran: Ran) -> None:
    """It has the steps before, in order, and that one."""
    steps: list[int] = []
    log = ran.names["LogFigures"](lambda figures, step: steps.append(step))
    with pytest.raises(RuntimeError, match="caught"):
        ran.run(log, Spy(fails_at=3))
    assert steps == [0, 1, 2, 3]


def events(folder: Path) -> Iterator[Any]:
    """What is in a folder of TensorBoard's: of each event a length, its checksum, the event, and
    its checksum."""
    from tensorboardX.proto.event_pb2 import Event

    (path,) = folder.iterdir()
    data = path.read_bytes()
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        yield Event.FromString(data[12 : 12 + length])
        data = data[16 + length :]


def check_tensorboard(ran: Ran) -> None:
    values = [
        (event.step, value)
        for event in events(ran.folder / "runs/star")
        for value in event.summary.value
    ]
    for column, name in enumerate(FIGURES):
        found = {step: v.simple_value for step, v in values if v.tag == f"latents/{name}"}
        wanted = [row[column] for row in figures(ran.plain)]
        assert sorted(found) == list(range(STEPS))
        np.testing.assert_allclose([found[i] for i in range(STEPS)], wanted, rtol=1e-5, atol=1e-6)
    pictures = {step: value.image for step, value in values if value.tag == "preview"}
    assert sorted(pictures) == [0, 5, 10, 15, 19]
    height, width = ran.plain[0].shape[2:]
    assert {(image.height, image.width) for image in pictures.values()} == {(height, width)}


def check_wandb(ran: Ran) -> None:
    (run,) = ran.wandb.runs
    assert run.is_finished
    assert [step for _, step in run.logged] == list(range(STEPS))
    found = [[logged[name] for name in FIGURES] for logged, _ in run.logged]
    np.testing.assert_allclose(found, figures(ran.plain), rtol=1e-5, atol=1e-6)


def check_memory(ran: Ran) -> None:
    assert len(ran.names["memory"]) == STEPS
    memory: list[int] = []
    kept: list[Array] = []

    def take(pipeline: Any, index: int, timestep: Any, tensors: Mapping[str, Any]) -> None:
        if index == 10:
            kept.append(np.ones(1 << 23))  # 64 MiB, written to

    log = ran.names["LogMemory"]
    ran.run(take, log(lambda found, step: memory.append(found["bytes"]), ran.names["of_process"]))
    assert memory[10] - memory[9] > 48 << 20
    peak = iter(range(STEPS))
    acts: list[Any] = []
    ran.run(
        log(lambda *found: acts.append(found), lambda: next(peak), lambda: acts.append("reset"))
    )
    assert acts == [act for i in range(STEPS) for act in (({"bytes": i}, i), "reset")]


def per_channel(x: Array) -> Array:
    return np.stack([x.mean((2, 3)), x.std((2, 3))])


def check_colour_match(ran: Ran) -> None:
    other = {"prompt": "a green ring on a white background"}
    wanted = load_trajectory(ran.folder / "colours.npz").latents[-1]
    np.testing.assert_array_equal(wanted, ran.plain[-1])
    plain = ran.run(**other)
    matched = ran.run(ran.names["MatchColours"](ran.folder / "colours.npz"), **other)
    np.testing.assert_allclose(per_channel(matched), per_channel(wanted), rtol=1e-4, atol=1e-4)
    assert abs(per_channel(plain) - per_channel(wanted)).max() > 1e-3
    # Nothing but that: channel by channel, it is the same picture.
    centred, before = (x - x.mean((2, 3), keepdims=True) for x in (matched, plain))
    scale = centred.std((2, 3), keepdims=True) / before.std((2, 3), keepdims=True)
    np.testing.assert_allclose(centred, before * scale, atol=1e-4)


def check_blend(ran: Ran) -> None:
    blend, file = ran.names["BlendWith"], ran.folder / "star.npz"
    other = {"prompt": "a green ring on a white background"}
    np.testing.assert_array_equal(ran.run(blend(file, weight=1, until=1), **other), ran.plain[-1])
    np.testing.assert_array_equal(
        ran.run(blend(file, weight=0, until=1), **other), ran.run(**other)
    )
    before, after = Spy(), Spy()
    ran.run(before, blend(file, weight=0.25, until=0.3), after, **other)
    star = load_trajectory(file).latents
    for index, (own, blended) in enumerate(zip(before.latents, after.latents, strict=True)):
        wanted = 0.75 * own + 0.25 * star[index] if index < 6 else own
        np.testing.assert_allclose(blended, wanted, rtol=1e-5, atol=1e-6)
    assert abs(before.latents[0] - star[0]).max() > 1e-4
    with pytest.raises(ValueError, match=f"this run has 7 steps, the other {STEPS}"):
        ran.run(blend(file), num_inference_steps=7)


def check_resumes(
    ran: Ran, pipe: Any, folder: Path, *others: Callback, again: int = 8, **arguments: Any
) -> int:
    """A run that was stopped after step 15 goes on to the bits of one that was not.

    Args:
        others: in all of the runs.
        again: of Resume.

    Returns:
        How many calls of models it was spared.
    """
    plain, resumed = CountCalls(), CountCalls()
    wanted = ran.run(*others, plain, pipe=pipe, **arguments)
    file = folder / "run.npz"
    stopped = ran.run(*others, Trajectory(file), Interrupt(15), pipe=pipe, **arguments)
    assert abs(stopped - wanted).max() > 1e-3
    # It counts behind Resume: what the models themselves are asked.
    found = ran.run(*others, resumed, ran.names["Resume"](file, again), pipe=pipe, **arguments)
    np.testing.assert_array_equal(found, wanted)
    return plain.calls - resumed.calls


def check_resume(ran: Ran, folder: Path) -> None:
    spared = check_resumes(ran, ran.pipe, folder)
    assert spared == SPARED
    resume = ran.names["Resume"](folder / "run.npz")
    for other in ({"prompt": "a green ring on a white background"}, {"num_inference_steps": 19}):
        with pytest.raises(ValueError, match="this is another run"):
            ran.run(resume, **other)
    with pytest.raises(RuntimeError, match="caught"):
        ran.run(Trajectory(folder / "failed.npz"), Spy(fails_at=11))
    failed = ran.names["Resume"](folder / "failed.npz")
    np.testing.assert_array_equal(ran.run(failed), ran.plain[-1])
    ran.run(Trajectory(folder / "some.npz", every=2))
    with pytest.raises(ValueError, match="has not every step"):
        ran.names["Resume"](folder / "some.npz")


def check_resume_beside_a_cut(ran: Ran, folder: Path, pipe: Any, **arguments: Any) -> None:
    """Which leaves fewer rows, in steps whose latents are known, or in those that are not."""
    for ratio in (0.25, 0.8):
        assert check_resumes(ran, pipe, folder, CFGCutoff(ratio), **arguments) > 0


#: Of the page's blocks, each by itself.
CHECKS: list[Callable[[Ran], None]] = [
    *(check_early_stop, check_csv, check_log_of_a_run_that_fails, check_tensorboard, check_wandb),
    *(check_memory, check_colour_match, check_blend),
]
checks = pytest.mark.parametrize("check", CHECKS, ids=[check.__name__[6:] for check in CHECKS])
