"""Look up facts about scheduler classes, and read noise levels when they are needed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from unicb._tables import FactTable
from unicb.ops import Tensor, TensorOps

_FIRST = "first_timestep"


@dataclass(frozen=True)
class SchedulerFacts:
    """``SchedulerFacts`` says how x0 can be computed on one class of scheduler.

    Attributes:
        source: where this was read.
        noisy: why x0 cannot be computed, or would be no better than the noisy latents; empty if it
            can.
        noise: where the scheduler has its noise levels. "exploding": ``sigmas``, and alpha is 1.
            "preserving": ``sigmas`` are sigma / alpha with alpha^2 + sigma^2 = 1, or a flow's with
            ``use_flow_sigmas``. "flow": ``sigmas``, and alpha is 1 - sigma; the other way round
            with ``invert_sigmas``. "timesteps": ``alphas_cumprod`` at ``timesteps``, and alpha is
            the root. "alphas_betas": ``alphas`` and ``betas``, one for each step.
        kept: name of the list whose last item has the model's output of the last step; if empty, x0
            is solved from the latents before and after a step.
        kept_is: what the last item of ``kept`` is; "output" is the model's own output, of the
            configured prediction type.
        kept_is_x0_if: names of settings, each with the values for which that item is x0.
        half: with order 2, the name of the list with the noise levels after the first halves of
            steps, if these differ from the levels after whole steps; else empty.
        half_from: index in that list of the level after the first half of the first step.
        estimate_if: names of settings with which the solution is not exact.
        noisy_if: names of settings with which x0 cannot be computed.
        noisy_if_passed: names of arguments of ``step`` with which x0 cannot be computed, unless
            they are 0.
    """

    source: str
    noisy: str = ""
    noise: Literal["exploding", "preserving", "flow", "timesteps", "alphas_betas"] = "exploding"
    kept: str = ""
    kept_is: Literal["x0", "epsilon", "output"] = "epsilon"
    kept_is_x0_if: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    half: str = ""
    half_from: int = 0
    estimate_if: Sequence[str] = ()
    noisy_if: Sequence[str] = ()
    noisy_if_passed: Sequence[str] = ()


class Level(NamedTuple):
    """A level is a noise level: ``x = alpha * x0 + sigma * noise``."""

    alpha: float
    sigma: float


class Schedule(NamedTuple):
    """A schedule holds a run's noise levels on the host: of each step's input, of its result, and
    of the result of its first half (used with order 2 only).

    The level of a step's result is not always that of the next step's input: DDIM goes down by a
    fixed number of timesteps, which with some spacings does not hit its next timestep.
    """

    starts: Sequence[Level]
    ends: Sequence[Level]
    halves: Sequence[Level]


def facts_for_scheduler(scheduler: object) -> SchedulerFacts | None:
    """Return the facts about the class of ``scheduler``; None if there are none.

    Classes are looked up by name, since a port has the same name as the original. A class of your
    own brings its facts in its class attribute ``unicb_facts``. A subclass has its base's facts
    unless it overrides ``step``.
    """
    return _table().about(type(scheduler), unless="step")


def known_schedulers() -> tuple[str, ...]:
    """Return the names of the scheduler classes in the data file, sorted."""
    return tuple(sorted(_table()))


@cache
def _table() -> FactTable[SchedulerFacts]:
    return FactTable("unicb.latents", "schedulers.toml", SchedulerFacts)


def setting(scheduler: Any, name: str) -> Any:
    """Return a scheduler's setting; None if it has none of this name."""
    return getattr(getattr(scheduler, "config", None), name, None)


def _exploding(scheduler: Any, read: Any) -> Schedule:
    return _between([Level(1.0, sigma) for sigma in read(scheduler.sigmas).tolist()])


def _flow(scheduler: Any, read: Any) -> Schedule:
    sigmas = read(scheduler.sigmas).tolist()
    if setting(scheduler, "invert_sigmas"):
        return _between([Level(sigma, 1 - sigma) for sigma in sigmas])
    return _between([Level(1 - sigma, sigma) for sigma in sigmas])


def _preserving(scheduler: Any, read: Any) -> Schedule:
    if setting(scheduler, "use_flow_sigmas"):
        return _flow(scheduler, read)
    ratios = read(scheduler.sigmas).tolist()
    return _between([Level(1 / math.hypot(1, r), r / math.hypot(1, r)) for r in ratios])


def _alphas_betas(scheduler: Any, read: Any) -> Schedule:
    pairs = zip(read(scheduler.alphas).tolist(), read(scheduler.betas).tolist(), strict=True)
    return _between([Level(alpha, beta) for alpha, beta in pairs])


def _timesteps(scheduler: Any, read: Any) -> Schedule:
    """Return the schedule of DDIM: each step goes down by the same number of training timesteps."""
    alphas = read(scheduler.alphas_cumprod)
    final = read(scheduler.final_alpha_cumprod)[0]
    steps = read(scheduler.timesteps).astype(int)
    stride = scheduler.config.num_train_timesteps // scheduler.num_inference_steps
    starts = [_variance_level(alphas[step]) for step in steps]  # all that PNDM needs
    ends = [_variance_level(alphas[step] if step >= 0 else final) for step in steps - stride]
    return Schedule(starts, ends, ends)


def _variance_level(alpha_cumprod: float) -> Level:
    return Level(math.sqrt(alpha_cumprod), math.sqrt(1 - alpha_cumprod))


def _between(levels: Sequence[Level]) -> Schedule:
    return Schedule(levels[:-1], levels[1:], levels[1:])


def _start(timesteps: npt.NDArray[np.float64], first: float | None, number: int | None) -> int:
    """Return the index of the timestep with which a loop starts.

    PNDM has one timestep twice, which only the number of steps tells apart; but the number alone
    does not tell a loop that starts late from a loop that ends early.
    """
    by_number = 0 if number is None else len(timesteps) - number
    if first is None:
        return by_number
    found = np.flatnonzero(np.isclose(timesteps, first)).tolist()
    return by_number if by_number in found or not found else int(found[0])


_READERS = {
    "exploding": _exploding,
    "preserving": _preserving,
    "flow": _flow,
    "timesteps": _timesteps,
    "alphas_betas": _alphas_betas,
}
#: Attributes that each kind reads; a new object in the first means a new schedule.
_ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
    "exploding": ("sigmas",),
    "preserving": ("sigmas",),
    "flow": ("sigmas",),
    "timesteps": ("timesteps", "alphas_cumprod", "final_alpha_cumprod", "num_inference_steps"),
    "alphas_betas": ("betas", "alphas"),
}


def attributes_needed(facts: SchedulerFacts) -> tuple[str, ...]:
    """List the attributes that a scheduler of this kind must have before its first run."""
    # The toy scheduler has no sigmas before its first run; the frameworks' schedulers have.
    needed = _ATTRIBUTES[facts.noise] if facts.noise in ("timesteps", "alphas_betas") else ()
    return tuple(name for name in (*needed, facts.kept, facts.half) if name)


def schedule_source(scheduler: Any, facts: SchedulerFacts) -> Any:
    """Return the object that the scheduler replaces whenever it gets a new schedule."""
    return getattr(scheduler, _ATTRIBUTES[facts.noise][0])


class LazySchedule:
    """A lazy schedule is a scheduler's current noise levels, to be read later, maybe in another
    thread. Reading waits for the device if they are there.

    Attributes:
        source: the result of :func:`schedule_source` when this was made.
    """

    def __init__(
        self,
        scheduler: Any,
        facts: SchedulerFacts,
        ops: TensorOps,
        first_timestep: Any,
        num_timesteps: int | None,
    ) -> None:
        names = (*_ATTRIBUTES[facts.noise], *((facts.half,) if facts.half else ()))
        self.source = schedule_source(scheduler, facts)
        self._noted = {name: getattr(scheduler, name) for name in names}
        self._noted[_FIRST] = first_timestep
        self._config = getattr(scheduler, "config", None)
        self._facts, self._ops, self._num_timesteps = facts, ops, num_timesteps
        self._schedule: Schedule | None = None
        self._offset = 0

    def start(self, step: int) -> Level | None:
        """Return the noise level of a step's input; None if the schedule has no such step."""
        return self._at(self._levels().starts, step)

    def end(self, step: int, half: bool = False) -> Level | None:
        """Return the noise level of a step's result, or of its first half's; None if the schedule
        has no such step."""
        levels = self._levels()
        return self._at(levels.halves if half else levels.ends, step)

    def unread(self) -> tuple[Tensor, ...]:
        """Return the tensors to hand to :meth:`read`; none after the levels were read."""
        return () if self._schedule is not None else tuple(self._tensors().values())

    def read(self, ops: TensorOps, tensors: Sequence[Tensor]) -> None:
        """Read the levels.

        Args:
            ops: the operations for these tensors, which may be copies of another type.
            tensors: the result of :meth:`unread`, or copies; if empty, nothing is done.
        """
        if self._schedule is not None:
            return
        read = {
            name: ops.to_numpy(tensor)
            for name, tensor in zip(self._tensors(), tensors, strict=True)
        }
        noted = SimpleNamespace(config=self._config, **{**self._noted, **read})
        schedule = _READERS[self._facts.noise](noted, _flat)
        if self._facts.half:
            sigmas = _flat(getattr(noted, self._facts.half)).tolist()
            halves = [Level(1.0, sigma) for sigma in sigmas[self._facts.half_from :]]
            schedule = schedule._replace(halves=halves)
        if self._facts.noise == "timesteps":
            first = getattr(noted, _FIRST)
            first = None if first is None else float(_flat(first)[0])
            self._offset = _start(_flat(noted.timesteps), first, self._num_timesteps)
        self._schedule = schedule

    def _tensors(self) -> dict[str, Tensor]:
        """Return the values that are still tensors, by name."""
        on_host = (int, float, np.ndarray, np.generic, type(None))
        return {name: x for name, x in self._noted.items() if not isinstance(x, on_host)}

    def _levels(self) -> Schedule:
        self.read(self._ops, self.unread())
        assert self._schedule is not None
        return self._schedule

    def _at(self, levels: Sequence[Level], step: int) -> Level | None:
        index = step + self._offset
        return levels[index] if 0 <= index < len(levels) else None


def _flat(values: Any) -> npt.NDArray[np.float64]:
    return np.asarray(values, dtype=np.float64).reshape(-1)
