"""What the model takes the finished latents to be (x0), told from the latents between its steps.

A sample at a noise level is ``x = alpha * x0 + sigma * noise``. A sampler's step keeps the model's
idea of x0 and of the noise, and goes to the next level:

    x_i     = alpha_i     * x0 + sigma_i     * noise
    x_{i+1} = alpha_{i+1} * x0 + sigma_{i+1} * noise

Two latents that follow each other are two equations for x0 (:func:`_solve`). They hold exactly for
samplers of order 1 without fresh noise: Euler in any parametrisation (arXiv 2206.00364, eq. 5 and
algorithm 1 without churn), rectified flow (arXiv 2209.03003), DDIM with eta = 0 (arXiv 2010.02502,
eq. 12). Schedulers of order 2 (Heun, KDPM2) begin every step with such a one. Multistep solvers
(arXiv 2211.01095, 2302.04867) mix the model's outputs of several steps, so that two latents tell
x0 only nearly; but these solvers keep the last output, as x0 or as noise.

Which scheduler is which: ``schedulers.toml``.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from unicb.ops import Tensor, TensorOps

Kind: TypeAlias = Literal["exact", "estimate"]


@dataclass(frozen=True)
class SchedulerFacts:
    """How x0 can be told on one class of scheduler.

    Attributes:
        source: where this was read.
        noisy: why it cannot be told, or not better than by the noisy latents; empty if it can.
        noise: where the scheduler has its noise levels. "exploding": ``sigmas``, alpha is 1.
            "preserving": ``sigmas`` are sigma / alpha with alpha^2 + sigma^2 = 1, or those of a
            flow with ``use_flow_sigmas``. "flow": ``sigmas``, alpha is 1 - sigma; the other way
            round with ``invert_sigmas``. "timesteps": ``alphas_cumprod`` at ``timesteps``, where
            alpha is the root. "alphas_betas": ``alphas`` and ``betas``, one for each step.
        kept: name of the list whose last item is what the model said in the last step; without
            one, two latents are solved for x0.
        kept_is: what that item is; "output" is the model's own, of the configured type.
        kept_is_x0_if: names of settings, and the values of each with which that item is x0.
        half: with order 2, the name of the list of the noise levels after first halves of steps,
            where these are not the levels after the whole ones, or not to rounding.
        half_from: index in that list of the level after the first half of the first step.
        estimate_if: names of settings with which the solution is not exact.
        noisy_if: names of settings with which x0 cannot be told.
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


class Level(NamedTuple):
    """A noise level: ``x = alpha * x0 + sigma * noise``."""

    alpha: float
    sigma: float


class Schedule(NamedTuple):
    """A run's noise levels, on the host: that of each step's input, that of its result, and that
    of its first half's result (used with order 2 only).

    The one's result is not always the other's input: DDIM goes down by a fixed number of
    timesteps, which with some spacings is not where its next timestep is.
    """

    starts: Sequence[Level]
    ends: Sequence[Level]
    halves: Sequence[Level]


class DenoisedEstimate:
    """The x0 of each step of one run. Make a new one for every run.

    It waits for the device once: at the first step's end it reads the schedule (a thousand numbers
    or so), and again only where the scheduler gets a new schedule during the run. It never changes
    latents, and keeps one tensor at most: the latents of the last step end, or after half a step
    the estimate that the other half's end will return.

    Args:
        scheduler: the pipeline's, one that :meth:`kind_of` does not say None to.
        ops: the tensor operations of the pipeline's framework.
        first_timestep: the timestep of the run's first step, and
        num_timesteps: how many there are. Schedulers that count their steps need neither. DDIM
            and PNDM do not count: without these, a run is taken to start with the schedule, and
            one that does not (image to image with a strength below 1) is told wrongly.

    Raises:
        ValueError: x0 cannot be told on this scheduler.
    """

    def __init__(
        self,
        scheduler: Any,
        ops: TensorOps,
        *,
        first_timestep: float | None = None,
        num_timesteps: int | None = None,
    ) -> None:
        facts, kind = facts_for_scheduler(scheduler), self.kind_of(scheduler)
        if facts is None or kind is None:
            raise ValueError(f"the denoised latents of {type(scheduler).__name__} cannot be told")
        self.kind: Kind = kind
        self._scheduler, self._ops, self._facts = scheduler, ops, facts
        self._first_timestep, self._num_timesteps = first_timestep, num_timesteps
        self._kept_is = _kept_type(scheduler, facts) if facts.kept else None
        self._schedule = Schedule((), (), ())
        self._read_from: object = None
        self._count = 0
        self._before: tuple[Tensor, int] | None = None
        self._kept_id: int | None = None
        self._waiting: Tensor | None = None

    @classmethod
    def kind_of(cls, scheduler: Any) -> Kind | None:
        """What :meth:`step_end` can tell on a scheduler, as it is configured.

        "exact": x0 to rounding, if no callback changes the latents in between. "estimate": the
        same formulas where they hold nearly. None: x0 cannot be told, or not better than by the
        noisy latents themselves.
        """
        facts = facts_for_scheduler(scheduler)
        if facts is None or facts.noisy:
            return None
        if any(_setting(scheduler, n) for n in facts.noisy_if):
            return None
        if not all(hasattr(scheduler, name) for name in _attributes(facts)):
            return None
        if facts.kept:
            return None if _kept_type(scheduler, facts) is None else "exact"
        unclear = any(_setting(scheduler, name) for name in facts.estimate_if)
        return "estimate" if unclear else "exact"

    def step_end(self, latents: Tensor) -> Tensor | None:
        """x0 as of the step that ends, given its latents; to be called at the end of every step.

        Args:
            latents: of any shape and floating dtype, as the loop hands them to a callback.

        Returns:
            x0, on the device, of the same shape and dtype; not to be changed in place, for it may
            be the scheduler's own (and of the dtype that it keeps: mindone's SASolver and UniPC
            may keep float32 of float16 latents). None where there is none: at the first step
            (unless the scheduler keeps x0), after half a step of a scheduler of order 2, and
            after a last step that leaves the noise level as it was.
        """
        self._read_schedule()
        half = self._is_half()
        now = self._steps_done(half)
        before, self._before = self._before, None
        if now is None:
            return None
        if before is not None and tuple(before[0].shape) != tuple(latents.shape):
            before = None
        if self._kept_is != "x0" and not half:
            self._before = (latents, now)
        if self._kept_is is not None:
            return self._from_kept(before, now)
        told = self._waiting
        if told is None and before is not None:
            previous, first = before
            end = (self._schedule.halves if half else self._schedule.ends)[now - 1]
            told = _solve(previous, latents, self._schedule.starts[first], end)
        self._waiting = told if half else None
        return None if half else told

    def _from_kept(self, before: tuple[Tensor, int] | None, now: int) -> Tensor | None:
        items = getattr(self._scheduler, self._facts.kept)
        kept = items[-1] if items else None
        # PNDM keeps no output of the second, third and fourth of its Runge-Kutta evaluations.
        # The list still holds the item before the last when a new one comes: no id comes twice.
        fresh, self._kept_id = id(kept) != self._kept_id, id(kept)
        if kept is None or not fresh:
            return None
        if self._kept_is == "x0":
            return kept
        if before is None or before[1] != now - 1:
            return None
        previous, (alpha, sigma) = before[0], self._schedule.starts[now - 1]
        if self._kept_is == "v_prediction":
            return previous * alpha - kept * sigma
        return (previous - kept * sigma) / alpha if alpha else None

    def _is_half(self) -> bool:
        """Whether the step that ends is the first half of one."""
        if getattr(self._scheduler, "state_in_first_order", True):
            return False
        # They end with a step that has no second half, and wait for one ever after.
        count = getattr(self._scheduler, "step_index", None)
        return count is None or count < len(self._scheduler.timesteps)

    def _steps_done(self, half: bool) -> int | None:
        """Index of the step that comes next; of the half step where the schedule lists these.
        None if the loop does something else with the scheduler than going through its schedule.
        """
        if hasattr(self._scheduler, "step_index"):
            # None where the loop steps a copy of the pipeline's scheduler.
            count = self._scheduler.step_index or 0
        else:
            self._count += not half
            count = self._count + half
        return int(count) if 0 < count <= len(self._schedule.ends) else None

    def _read_schedule(self) -> None:
        source = getattr(self._scheduler, _ATTRIBUTES[self._facts.noise][0])
        if source is self._read_from:
            return
        self._read_from, self._count = source, 0
        self._before = self._waiting = None
        self._schedule = _READERS[self._facts.noise](self._scheduler, self._read)
        if self._facts.half:
            sigmas = self._read(getattr(self._scheduler, self._facts.half)).tolist()
            halves = [Level(1.0, sigma) for sigma in sigmas[self._facts.half_from :]]
            self._schedule = self._schedule._replace(halves=halves)
        if self._facts.noise == "timesteps":
            timesteps = self._read(source)
            self._count = _start(timesteps, self._first_timestep, self._num_timesteps)

    def _read(self, values: Any) -> npt.NDArray[np.float64]:
        host = values if isinstance(values, np.ndarray) else self._ops.to_numpy(values)
        return np.asarray(host, dtype=np.float64).reshape(-1)


def facts_for_scheduler(scheduler: object) -> SchedulerFacts | None:
    """Facts about the class of ``scheduler``; None if there are none.

    Classes go by their names: the frameworks call their ports of one scheduler the same. A class
    of your own says it itself, in the class attribute ``unicb_facts``. A subclass is as known as
    its base as long as it leaves the base's ``step`` alone.
    """
    for base in type(scheduler).__mro__:
        if isinstance(said := vars(base).get("unicb_facts"), SchedulerFacts):
            return said
        if base.__name__ in _table():
            return _table()[base.__name__]
        if "step" in vars(base):
            return None
    return None


def known_schedulers() -> tuple[str, ...]:
    """Names of the scheduler classes in the data file, sorted."""
    return tuple(sorted(_table()))


@cache
def _table() -> Mapping[str, SchedulerFacts]:
    text = files("unicb.latents").joinpath("schedulers.toml").read_text(encoding="utf-8")
    return {name: SchedulerFacts(**entry) for name, entry in tomllib.loads(text).items()}


def _setting(scheduler: Any, name: str) -> Any:
    return getattr(getattr(scheduler, "config", None), name, None)


def _kept_type(scheduler: Any, facts: SchedulerFacts) -> str | None:
    if facts.kept_is == "output":
        said = _setting(scheduler, "prediction_type")
        return said if said in ("epsilon", "v_prediction") else None
    given = facts.kept_is_x0_if.items()
    if any(_setting(scheduler, name) in values for name, values in given):
        return "x0"
    return facts.kept_is


def _solve(before: Tensor, after: Tensor, start: Level, end: Level) -> Tensor | None:
    """x0 from the latents before and after a step, and their noise levels.

    Written with the difference of the two, which are alike: in half precision, that rounds away
    less than the difference of their multiples would. None if both levels are the same.
    """
    determinant = start.sigma * end.alpha - end.sigma * start.alpha
    if math.isclose(start.sigma * end.alpha, end.sigma * start.alpha, rel_tol=1e-6):
        return None
    whole = (start.sigma - end.sigma) / determinant
    change = end.sigma / determinant
    if math.isclose(whole, 1):  # Euler by sigmas or by flow: nothing to round
        return after + (after - before) * change
    return after * whole + (after - before) * change


def _exploding(scheduler: Any, read: Any) -> Schedule:
    return _between([Level(1.0, sigma) for sigma in read(scheduler.sigmas).tolist()])


def _flow(scheduler: Any, read: Any) -> Schedule:
    sigmas = read(scheduler.sigmas).tolist()
    if _setting(scheduler, "invert_sigmas"):
        return _between([Level(sigma, 1 - sigma) for sigma in sigmas])
    return _between([Level(1 - sigma, sigma) for sigma in sigmas])


def _preserving(scheduler: Any, read: Any) -> Schedule:
    if _setting(scheduler, "use_flow_sigmas"):
        return _flow(scheduler, read)
    ratios = read(scheduler.sigmas).tolist()
    return _between([Level(1 / math.hypot(1, r), r / math.hypot(1, r)) for r in ratios])


def _alphas_betas(scheduler: Any, read: Any) -> Schedule:
    pairs = zip(read(scheduler.alphas).tolist(), read(scheduler.betas).tolist(), strict=True)
    return _between([Level(alpha, beta) for alpha, beta in pairs])


def _timesteps(scheduler: Any, read: Any) -> Schedule:
    """As DDIM has it: a step goes down by the same number of training timesteps every time."""
    alphas = read(scheduler.alphas_cumprod)
    final = read(scheduler.final_alpha_cumprod)[0]
    steps = read(scheduler.timesteps).astype(int)
    stride = scheduler.config.num_train_timesteps // scheduler.num_inference_steps
    starts = [_variance_level(alphas[step]) for step in steps]  # PNDM needs no others
    ends = [_variance_level(alphas[step] if step >= 0 else final) for step in steps - stride]
    return Schedule(starts, ends, ends)


def _variance_level(alpha_cumprod: float) -> Level:
    return Level(math.sqrt(alpha_cumprod), math.sqrt(1 - alpha_cumprod))


def _between(levels: Sequence[Level]) -> Schedule:
    return Schedule(levels[:-1], levels[1:], levels[1:])


def _start(timesteps: npt.NDArray[np.float64], first: float | None, number: int | None) -> int:
    """Index of the timestep that a loop starts with.

    PNDM has one of its timesteps twice, which only the number can tell apart; the number alone
    does not tell a loop that starts late from one that ends early.
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
#: What each reads; a new object under the first name is a new schedule.
_ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
    "exploding": ("sigmas",),
    "preserving": ("sigmas",),
    "flow": ("sigmas",),
    "timesteps": ("timesteps", "alphas_cumprod", "final_alpha_cumprod", "num_inference_steps"),
    "alphas_betas": ("betas", "alphas"),
}


def _attributes(facts: SchedulerFacts) -> tuple[str, ...]:
    # The toy scheduler has no sigmas before its first schedule; the frameworks' have.
    needed = _ATTRIBUTES[facts.noise] if facts.noise in ("timesteps", "alphas_betas") else ()
    return tuple(name for name in (*needed, facts.kept, facts.half) if name)
