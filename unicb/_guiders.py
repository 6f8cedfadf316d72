"""Use guider objects of the frameworks' modular pipelines as guidance rules."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from unicb.callback import Callback
from unicb.callbacks.guidance_interval import half_steps
from unicb.callbacks.guidance_rule import GuidanceRule
from unicb.callbacks.guidance_rules import check_zero_steps, refuse_rescaling
from unicb.errors import UnsupportedPipelineError
from unicb.guidance._guider import CONDITIONAL, UNCONDITIONAL, batches_of, predictions
from unicb.guidance.rule_step import RuleStep
from unicb.ops import Tensor
from unicb.step import Step
from unicb.tensors import dtype_name

if TYPE_CHECKING:
    from unicb import Target
    from unicb.run.run import Run

_BOTH = (CONDITIONAL, UNCONDITIONAL)
#: Guiders that return a conditional prediction unchanged when they get no other.
_PASS_ON = (
    *("AdaptiveProjectedGuidance", "AdaptiveProjectedMixGuidance", "ClassifierFreeGuidance"),
    *("ClassifierFreeZeroStarGuidance", "FrequencyDecoupledGuidance", "MagnitudeAwareGuidance"),
    "TangentialClassifierFreeGuidance",
)
#: How many steps a guider is tried on before a run.
_STEPS = 100


class GuiderRule(GuidanceRule):
    """Combine the two predictions of a classic loop with a guider object of the frameworks.

    The guider is called as modular pipelines call it: it gets the step, names the predictions that
    it needs, and combines them. In steps for which it needs the conditional prediction only, the
    unconditional one is not computed. Each run uses copies, so the guider object does not change.

    Args:
        guider: an object derived from a framework's ``BaseGuidance``. Its own scale, start and stop
            apply, not the pipeline's. It may need no other predictions than the conditional and the
            unconditional one.

    Raises:
        UnsupportedPipelineError: from ``bind``: as from :class:`unicb.GuidanceRule`; or the guider
            needs other predictions, or fails on predictions shaped like this pipeline's.
    """

    def __init__(self, guider: Any) -> None:
        super().__init__()
        self._guider = guider
        self._steps = _Steps(guider)

    def on_bind(self, target: Target) -> None:
        super().on_bind(target)
        self._steps.on_bind(target)

    def before_first_step(self, step: Step) -> None:
        super().before_first_step(step)
        self._steps.on_step_end(step)

    def on_step_end(self, step: Step) -> None:
        self._steps.on_step_end(step)

    def combine(
        self, unconditional: Tensor, conditional: Tensor, scale: float | Tensor, step: RuleStep
    ) -> Tensor:
        if step.has_own_scale:
            raise UnsupportedPipelineError(
                f"cannot guide by a {type(self._guider).__name__} in this run: the call has given "
                f"part {step.part} of the prediction a scale of its own, and the guider has one "
                "for all"
            )
        guider = step.state(self, lambda: self._at_first_step(step))
        if step.index < getattr(guider, "zero_init_steps", 0):
            refuse_rescaling(step)
        timestep = step.run.loop_locals(["t"]).get("t")
        guider.set_state(step=step.index, num_inference_steps=step.num_timesteps, timestep=timestep)
        found = dict(zip(_BOTH, (conditional, unconditional), strict=True))
        try:
            return _prediction(guider, found)
        except UnsupportedPipelineError:
            raise
        except Exception as error:
            error.add_note(f"raised by the {_named(guider)}, in its own code")
            raise

    def _at_first_step(self, step: RuleStep) -> Any:
        made = copy.copy(self._steps.guider_of(step.run))
        made.set_state(step=0, num_inference_steps=step.num_timesteps, timestep=None)
        batches_of(made)  # its momentum begins anew
        return made

    def _name_in_messages(self) -> str:
        return type(self._guider).__name__


class _Steps(Callback):
    """Leave out the unconditional prediction in steps for which the guider does not need it."""

    def __init__(self, guider: Any) -> None:
        self._guider = guider

    def guider_of(self, run: Run) -> Any:
        """Return the run's copy of the guider, made when the run began."""
        return run.state(self, lambda: copy.copy(self._guider))

    def on_step_end(self, step: Step) -> None:
        following = range(step.index + 1, step.num_timesteps)[: half_steps(step)]
        if not following or (step.index >= 0 and not step.is_whole):
            return
        guider, steps = self.guider_of(step.run), step.num_timesteps
        if all(_is_idle(guider, index, steps) for index in following):
            step.cut_guidance()
        else:
            step.restore_guidance()

    def on_bind(self, target: Target) -> None:
        """Raise UnsupportedPipelineError if the guider cannot guide this pipeline's loop."""
        guider, name = copy.copy(self._guider), type(self._guider).__name__
        cannot = f"cannot guide a {target.name} by a {name}"
        if name == "LTX2Guidance":
            raise UnsupportedPipelineError(
                f"{cannot}: it takes estimates of the clean latents, into which the blocks of "
                "LTX-2's modular pipeline convert predictions, and the loop combines predictions"
            )
        most, fullest, is_ever_idle = 0, 0, False
        for index in range(_STEPS):
            guider.set_state(step=index, num_inference_steps=_STEPS, timestep=None)
            is_ever_idle = is_ever_idle or _is_idle(guider, index, _STEPS)
            if guider.num_conditions >= most:
                most, fullest = guider.num_conditions, index
        guider.set_state(step=0, num_inference_steps=_STEPS, timestep=None)
        batches_of(guider)
        guider.set_state(step=fullest, num_inference_steps=_STEPS, timestep=None)
        needed = predictions(guider)
        if more := [prediction for prediction in needed if prediction not in _BOTH]:
            raise UnsupportedPipelineError(
                f"{cannot}: it needs {' and '.join(more)}, of a call of the denoiser that the loop "
                f"does not make; it makes {' and '.join(_BOTH)}"
            )
        if _changes_models(guider):
            raise UnsupportedPipelineError(
                f"{cannot}: it changes the denoiser for one of its predictions, and the loop "
                "computes both with the denoiser as it is"
            )
        if getattr(guider, "zero_init_steps", 0):
            check_zero_steps(target)
        if is_ever_idle:
            target.guidance.check_cut()
        self._rehearse(target, guider, cannot)

    def _rehearse(self, target: Target, guider: Any, cannot: str) -> None:
        """Try the guider on two small random predictions with as many axes as the pipeline's."""
        like = _some_tensor(target)
        try:
            axes = len(target.layout.axes)
        except UnsupportedPipelineError:
            return
        if like is None:
            return
        random = np.random.default_rng(0)
        numbers = random.standard_normal((2, 2, *(8,) * (axes - 1))).astype(np.float32)
        backend = target.backend
        pair = [backend.in_dtype(backend.ops.from_numpy(x, like), "float32") for x in numbers]
        try:
            with backend.fork_rng():
                _prediction(guider, dict(zip(_BOTH, pair, strict=True)))
        except Exception as error:
            raise UnsupportedPipelineError(
                f"{cannot}: the {_named(guider)} fails in its own code on predictions of {axes} "
                f"axes, without unicb as well: {type(error).__name__}: {error}"
            ) from error


def _prediction(guider: Any, found: Mapping[str, Tensor]) -> Any:
    """Return the guider's result for its current step; ``found`` has the predictions by name."""
    batches = dict(batches_of(guider))
    for name, batch in batches.items():
        if name not in found:
            raise UnsupportedPipelineError(
                f"the {type(guider).__name__} needs {name}, which this loop does not compute"
            )
        batch.noise_pred = found[name]
    made = guider([*batches.values()])
    return getattr(made, "pred", made)


def _is_idle(guider: Any, index: int, steps: int) -> bool:
    """Return whether the guider returns the conditional prediction of this step unchanged."""
    guider.set_state(step=index, num_inference_steps=steps, timestep=None)
    known = type(guider).__name__ in _PASS_ON and ".guiders." in type(guider).__module__
    in_zeros = getattr(guider, "_enabled", True) and index < getattr(guider, "zero_init_steps", 0)
    return known and not in_zeros and bool(guider.num_conditions == 1)


def _changes_models(guider: Any) -> bool:
    owner = next(kind for kind in type(guider).__mro__ if "prepare_models" in vars(kind))
    return owner.__name__ != "BaseGuidance"


def _named(guider: Any) -> str:
    kind = type(guider)
    return f"{kind.__name__} of {kind.__module__.partition('.')[0]}"


def _some_tensor(target: Target) -> Tensor | None:
    """Return some floating-point tensor of the pipeline; None if none is found."""
    scheduler = getattr(target.pipeline, "scheduler", None)
    for value in vars(scheduler).values() if scheduler is not None else ():
        if target.backend.is_tensor(value) and "float" in dtype_name(value):
            return value
    return None
