"""Schedulers of the framework run on a made-up model, with the x0 that each step had."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from here import backend, diffusers, tensor

from unicb import Callback, Run, Step
from unicb.latents.denoised import DenoisedEstimate

Array = npt.NDArray[Any]

EPSILON, V, SAMPLE, FLOW = "epsilon", "v_prediction", "sample", "flow_prediction"
SPACINGS = ("linspace", "leading", "trailing")
STABLE_DIFFUSION = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@dataclass(frozen=True)
class Case:
    """A scheduler's class and settings."""

    name: str
    config: Mapping[str, Any] = field(default_factory=dict)
    steps: int = 10
    #: Arguments of ``set_timesteps`` beyond the number of steps.
    schedule: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        usual = {*STABLE_DIFFUSION, "clip_sample", "skip_prk_steps"}
        own = [f"{key}={value}" for key, value in self.config.items() if key not in usual]
        return "-".join([self.name.removesuffix("Scheduler"), *own])


def _cases(name: str, *settings: Mapping[str, Any], **every: list[Any] | tuple[Any, ...]) -> Any:
    """The settings, each combined with each combination of ``every``."""
    for fixed in settings or ({},):
        for values in itertools.product(*every.values()):
            yield Case(name, {**fixed, **dict(zip(every, values, strict=True))})


def _exact() -> Iterator[Case]:
    sd, unclipped = STABLE_DIFFUSION, {**STABLE_DIFFUSION, "clip_sample": False}
    offset = {**unclipped, "set_alpha_to_one": False, "steps_offset": 1}
    three = (EPSILON, V, SAMPLE)
    for name in ("DDIMScheduler", "DDIMParallelScheduler", "CogVideoXDDIMScheduler"):
        yield from _cases(name, unclipped, prediction_type=three, timestep_spacing=SPACINGS)
        yield Case(name, offset)
        zero = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
        yield Case(name, {**unclipped, **zero, "prediction_type": V})
        yield Case(name, unclipped, steps=7)  # does not divide 1000
    name = "EulerDiscreteScheduler"
    yield from _cases(name, sd, prediction_type=three, timestep_spacing=SPACINGS)
    yield from _cases(name, {**sd, "use_karras_sigmas": True}, prediction_type=three)
    yield Case(name, {**sd, "use_exponential_sigmas": True})
    yield Case(name, {**sd, "final_sigmas_type": "sigma_min"})
    continuous = {"timestep_type": "continuous", "sigma_min": 0.002, "sigma_max": 80.0}
    yield Case(name, {**sd, **continuous, "prediction_type": V, "use_karras_sigmas": True})
    zero = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    yield Case(name, {**sd, **zero, "prediction_type": V})
    yield from _cases("EDMEulerScheduler", prediction_type=(EPSILON, V))
    name = "FlowMatchEulerDiscreteScheduler"
    yield from _cases(name, shift=(1.0, 3.0))
    yield Case(name, {"invert_sigmas": True})
    yield Case(name, {"use_karras_sigmas": True})
    yield Case(name, {"use_dynamic_shifting": True}, schedule={"mu": 0.7})
    yield Case(name, {}, schedule={"sigmas": np.linspace(1.0, 0.1, 10).tolist()})
    yield from _halves()
    yield from _solvers()


def _halves() -> Iterator[Case]:
    sd, karras = STABLE_DIFFUSION, {**STABLE_DIFFUSION, "use_karras_sigmas": True}
    yield from _cases("HeunDiscreteScheduler", sd, prediction_type=(EPSILON, V, SAMPLE))
    yield Case("HeunDiscreteScheduler", karras)
    for name in ("KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler"):
        yield from _cases(name, sd, karras, prediction_type=(EPSILON, V))
    yield from _cases("FlowMatchHeunDiscreteScheduler", shift=(1.0, 3.0))


def _solvers() -> Iterator[Case]:
    sd, flow = STABLE_DIFFUSION, {"use_flow_sigmas": True, "prediction_type": FLOW}
    three = (EPSILON, V, SAMPLE)
    name = "DPMSolverMultistepScheduler"
    kinds = ("dpmsolver++", "sde-dpmsolver++", "dpmsolver", "sde-dpmsolver")
    # At sigma 0 the solvers of the noise divide by it: they end at the smallest instead.
    for kind in kinds:
        ends = {} if kind.endswith("++") else {"final_sigmas_type": "sigma_min"}
        yield from _cases(name, {**sd, **ends, "algorithm_type": kind}, prediction_type=three)
    yield Case(name, {**sd, "algorithm_type": "dpmsolver++", **flow, "flow_shift": 3.0})
    yield from _cases(name, sd, solver_order=(1, 3), timestep_spacing=SPACINGS)
    yield Case(name, {**sd, "use_karras_sigmas": True})
    name = "UniPCMultistepScheduler"
    yield from _cases(name, sd, predict_x0=(True, False), prediction_type=three)
    yield Case(name, {**sd, **flow, "flow_shift": 3.0})
    yield Case(name, {**sd, "predict_x0": False, "solver_order": 1, "timestep_spacing": "trailing"})
    yield from _cases("DEISMultistepScheduler", sd, prediction_type=three)
    yield Case("DEISMultistepScheduler", {**sd, **flow})
    yield Case("DEISMultistepScheduler", {**sd, "solver_order": 1})
    name = "DPMSolverSinglestepScheduler"
    yield from _cases(name, sd, solver_order=(1, 2, 3), prediction_type=three)
    noise = {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}
    yield from _cases(name, {**sd, **noise}, prediction_type=three)
    name = "SASolverScheduler"
    kinds = ("data_prediction", "noise_prediction")
    yield from _cases(name, sd, algorithm_type=kinds, prediction_type=three)
    yield from _cases("EDMDPMSolverMultistepScheduler", prediction_type=(EPSILON, V))
    yield Case("LMSDiscreteScheduler", {**sd, "use_karras_sigmas": True})
    yield from _cases("LMSDiscreteScheduler", sd, prediction_type=three)
    for skip in (True, False):
        settings = {**sd, "skip_prk_steps": skip, "steps_offset": 1}
        yield from _cases("PNDMScheduler", settings, prediction_type=(EPSILON, V))
    yield Case("IPNDMScheduler")


EXACT = tuple(_exact())


def _estimated() -> Iterator[Case]:
    for name in ("DDIMScheduler", "DDIMParallelScheduler"):
        yield Case(name, {**STABLE_DIFFUSION, "clip_sample": True, "clip_sample_range": 3.0})


ESTIMATED = tuple(_estimated())

#: Classes with a kind that only one framework exports, or that need more than it comes with.
UNSHARED = ("MiniMaxH3Scheduler", "CosineDPMSolverMultistepScheduler", "ToyScheduler")


def build(case: Case) -> Any:
    scheduler = getattr(diffusers, case.name)(**case.config)
    given = {} if "sigmas" in case.schedule else {"num_inference_steps": case.steps}
    scheduler.set_timesteps(**given, **case.schedule)
    return scheduler


@dataclass
class Computed:
    """One step: the new latents, the model's x0, and the estimate, on the host."""

    latents: Array
    truth: Array
    estimate: Array | None


MIX = np.random.default_rng(3).normal(size=(4, 4)) / 2


def model(sample: Array, timestep: float, kind: str) -> Array:
    """Something like what a model of the kind says: its x0 has a size of about 1."""
    phase = np.cos(np.arange(4) * (1 + timestep / 300))[:, None, None]
    said = np.tanh(np.einsum("dc,bchw->bdhw", MIX, sample) + phase)
    if kind == EPSILON:
        return sample + 0.05 * said
    return sample + 0.3 * said if kind == FLOW else said


def kind_of_model(scheduler: Any) -> str:
    if type(scheduler).__name__.startswith("FlowMatch"):
        return FLOW
    if type(scheduler).__name__.startswith("EDM"):
        return SAMPLE  # preconditioned: the size is that of x0
    return str(getattr(scheduler.config, "prediction_type", None) or EPSILON)


def run(case: Case, start: int = 0, scheduler: Any = None) -> list[Computed]:
    """All steps of a run that begins at the ``start``-th timestep, in float32."""
    scheduler = scheduler or build(case)
    timesteps = list(scheduler.timesteps)[start:]
    if start and hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(start)
    kind = kind_of_model(scheduler)
    random = np.random.default_rng(0)
    host = random.normal(size=(1, 4, 8, 8)) * float(getattr(scheduler, "init_noise_sigma", 1.0))
    latents = tensor(host.astype(np.float32))
    first = float(timesteps[0])
    estimate = DenoisedEstimate(
        scheduler, backend.ops, first_timestep=first, num_timesteps=len(timesteps)
    )
    at_once = DenoisedEstimate(
        scheduler, backend.ops, first_timestep=first, num_timesteps=len(timesteps)
    )
    found: list[Computed] = []
    answered = np.empty(0)
    for index, timestep in enumerate(timesteps):
        scale = getattr(scheduler, "scale_model_input", lambda sample, _: sample)
        seen = backend.ops.to_numpy(scale(latents, timestep))
        said = tensor(model(seen, float(timestep), kind).astype(np.float32))
        whole = getattr(scheduler, "state_in_first_order", True)
        truth = _truth(scheduler, said, timestep, latents)
        result = scheduler.step(said, timestep, latents, return_dict=False)
        if truth is None:
            truth = backend.ops.to_numpy(result[1])
        # Two halves of a step ask the model twice; what counts is the first answer.
        answered = truth if whole else answered
        latents = result[0]
        before = backend.ops.to_numpy(latents)
        computed = estimate.step_end(latents)
        after = backend.ops.to_numpy(latents)
        np.testing.assert_array_equal(before, after)
        if computed is not None:
            assert computed.dtype == latents.dtype
        if not at_once.needs_notes:
            start = None if index == 0 else tensor(found[-1].latents)
            lazy = at_once.between(start, latents, index)
            same = None if lazy is None else lazy.compute(*lazy.tensors)
            assert (same is None) == (computed is None)
            if same is not None:
                np.testing.assert_array_equal(
                    backend.ops.to_numpy(same), backend.ops.to_numpy(computed)
                )
        found.append(
            Computed(after, answered, None if computed is None else backend.ops.to_numpy(computed))
        )
    return found


def _truth(scheduler: Any, said: Any, timestep: Any, latents: Any) -> Array | None:
    """The x0 that the step is going to use, by the scheduler's own account or by definition; None
    if the step itself tells it.
    """
    x, out = backend.ops.to_numpy(latents), backend.ops.to_numpy(said)
    name = type(scheduler).__name__
    if hasattr(scheduler, "convert_model_output"):
        if scheduler.step_index is None:
            scheduler._init_step_index(timestep)
        return _converted(scheduler, said, latents)
    if name == "FlowMatchEulerDiscreteScheduler":
        sigma = float(timestep) / scheduler.config.num_train_timesteps
        if scheduler.config.invert_sigmas:
            return x + (1 - sigma) * out
        return x - sigma * out
    if name == "FlowMatchHeunDiscreteScheduler":
        return x - float(timestep) / scheduler.config.num_train_timesteps * out
    if name == "PNDMScheduler":
        alpha = float(scheduler.alphas_cumprod[int(timestep)])
        if scheduler.config.prediction_type == V:
            return alpha**0.5 * x - (1 - alpha) ** 0.5 * out
        return (x - (1 - alpha) ** 0.5 * out) / alpha**0.5
    if name == "IPNDMScheduler":
        index = scheduler.step_index or 0
        alpha, beta = float(scheduler.alphas[index]), float(scheduler.betas[index])
        return (x - beta * (beta * x + alpha * out)) / max(alpha, 1e-8)
    return None


def _converted(scheduler: Any, said: Any, latents: Any) -> Array:
    """x0 by the scheduler's conversion, or by definition from the model's output where the
    conversion gives noise.
    """
    if not _solves_noise(scheduler):
        return backend.ops.to_numpy(scheduler.convert_model_output(said, sample=latents))
    x, out = backend.ops.to_numpy(latents), backend.ops.to_numpy(said)
    level = scheduler.sigmas[scheduler.step_index]
    alpha, sigma = (float(part) for part in scheduler._sigma_to_alpha_sigma_t(level))
    kind = scheduler.config.prediction_type
    if kind == EPSILON:
        return (x - sigma * out) / alpha
    if kind == FLOW:
        return x - float(level) * out
    return out if kind == SAMPLE else alpha * x - sigma * out


def _solves_noise(scheduler: Any) -> bool:
    config = scheduler.config
    return (
        getattr(config, "algorithm_type", "") in ("dpmsolver", "sde-dpmsolver", "deis")
        or getattr(config, "algorithm_type", "") == "noise_prediction"
        or getattr(config, "predict_x0", True) is False
    )


def check_exact(case: Case, found: list[Computed]) -> None:
    """Estimates at the steps that can have one, each what the scheduler used, to rounding."""
    scheduler = getattr(diffusers, case.name)(**case.config)
    assert DenoisedEstimate.kind_of(scheduler) == "exact"
    where = [index for index, step in enumerate(found) if step.estimate is not None]
    assert where == _expected(scheduler, len(found))
    assert max(relative_error(found[index]) for index in where) < 1e-4


def _expected(scheduler: Any, steps: int) -> list[int]:
    """Indices of the steps that have an estimate."""
    if getattr(scheduler, "order", 1) == 2:
        return [*range(3, steps, 2), steps - 1]  # the last is a single one
    if type(scheduler).__name__ == "PNDMScheduler":
        # The second evaluation is for the first step again; Runge-Kutta has four a step.
        skips = scheduler.config.skip_prk_steps
        return list(range(2, steps)) if skips else [4, 8, *range(12, steps)]
    last = steps
    if getattr(scheduler.config, "final_sigmas_type", "") == "sigma_min":
        kept = hasattr(scheduler, "model_outputs")
        last = steps if kept else steps - 1  # Euler's last step stays where it is
    keeps_x0 = hasattr(scheduler, "model_outputs") and not _solves_noise(scheduler)
    return list(range(0 if keeps_x0 else 1, last))


def relative_error(step: Computed) -> float:
    """Largest error of an estimate, by the standard deviation of the true x0."""
    assert step.estimate is not None
    return float(np.abs(step.estimate - step.truth).max() / step.truth.std())


def correlation(a: Array, b: Array) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


#: Kinds of pipeline, arguments of their call, and how many steps of six have no estimate.
PIPELINES = (
    ("text2img", {}, 1),
    ("xl-text2img", {}, 1),
    ("img2img", {"strength": 0.6}, 1),
    ("inpaint-9", {"strength": 0.6}, 1),
    ("order-2", {}, 6),
)


class Watch(Callback):
    """Compares the estimate of each step with what the pipeline's scheduler used."""

    tensors = ("latents",)

    def __init__(self, truths: list[Any]) -> None:
        self.truths = truths
        self.errors: list[float | None] = []
        self.computed: list[Array] = []

    def on_run_start(self, run: Run) -> None:
        self.estimate: DenoisedEstimate | None = None

    def on_step_end(self, step: Step) -> None:
        if self.estimate is None:
            self.estimate = DenoisedEstimate(
                step.pipeline.scheduler,
                step.ops,
                first_timestep=step.timestep,
                num_timesteps=step.num_timesteps,
            )
        computed = self.estimate.step_end(step["latents"])
        if computed is None:
            self.errors.append(None)
            return
        host, truth = step.ops.to_numpy(computed), step.ops.to_numpy(self.truths[-1])
        self.computed.append(host)
        self.errors.append(float(np.abs(host - truth).max() / truth.std()))


def watched(pipe: Any) -> Watch:
    """Has the scheduler's own account of x0 noted: of whole steps, and of first halves."""
    truths: list[Any] = []
    scheduler = pipe.scheduler
    step = scheduler.step

    @functools.wraps(step)  # pipelines look at its signature
    def noting(*args: Any, **kwargs: Any) -> Any:
        first = getattr(scheduler, "state_in_first_order", True)
        result = step(*args, **kwargs)
        if first:
            truths.append(result[1])
        return result

    scheduler.step = noting
    return Watch(truths)


def check_watched(watch: Watch, nones: int) -> None:
    errors = [error for error in watch.errors if error is not None]
    assert watch.errors.count(None) == nones
    assert len(errors) >= 2
    assert max(errors) < 1e-4


def check_inpainted(watch: Watch) -> None:
    """The kept part, outside of the mask's middle, is the original in all estimates but the last,
    where the loop has put in the clean original but the schedule ends above zero.
    """
    kept = [one[:, :, 0, :] for one in watch.computed[:-1]]
    assert len(kept) >= 3
    for part in kept:
        np.testing.assert_allclose(part, kept[0], atol=1e-4)
    assert np.abs(watch.computed[0] - watch.computed[-2]).max() > 1e-2
