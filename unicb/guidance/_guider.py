"""Read guiders: objects of a pipeline that say which predictions a step takes and in which order,
and combine them.

A guider that asks only for the conditional prediction after its last step is cut by moving that
step: then it combines nothing and keeps no state, such as a momentum. A guider that takes more than
two predictions gets the scale at which the unconditional one has no effect; or, if that would
change the effect of the others, its unconditional call is answered with the conditional prediction.

The effect of a change is tried on a copy of the guider before anything is changed in a run.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from unicb.errors import UnsupportedPipelineError
from unicb.guidance._models import Models

if TYPE_CHECKING:
    from unicb.run.holds import Hold
    from unicb.run.run import Run

CONDITIONAL, UNCONDITIONAL = "pred_cond", "pred_uncond"
#: Name of the attribute with the share of the steps after which a guider stops.
_STOP = "_stop"
_SCALE = "guidance_scale"
#: Name of the guider's method that a loop calls before each call of its denoiser.
_PREPARE = "prepare_models"
_STEPS = 10
#: How guidance is cut: the guider is set past its last step; its scale is set so that the
#: unconditional prediction has no effect; or its unconditional calls are answered.
Way: TypeAlias = Literal["stop", "scale", "answer"]


def guiders_of(pipeline: Any, names: tuple[str, ...]) -> list[Any]:
    """Return the pipeline's guiders, by the names of their attributes."""
    found = (getattr(pipeline, name, None) for name in names)
    return [guider for guider in found if guider is not None]


def batches_of(guider: Any) -> list[tuple[str, Any]]:
    """List the predictions that a guider needs in its current step, in its order: each one's name,
    and the batch object that takes it."""
    ask = getattr(guider, "prepare_inputs_from_block_state", guider.prepare_inputs)
    return [(getattr(batch, guider._identifier_key), batch) for batch in ask({}, {})]


def predictions(guider: Any) -> tuple[str, ...]:
    """Return the names of the predictions that a guider needs in its current step, in its order."""
    return tuple(name for name, _ in batches_of(guider))


def is_on(guider: Any, num_timesteps: int = _STEPS) -> bool:
    """Return whether the guider needs an unconditional prediction in any step of a run this
    long."""
    return any(UNCONDITIONAL in predictions(step) for step in _steps(guider, num_timesteps))


def least_scale(guider: Any) -> float:
    """Return the scale at which the guider returns the conditional prediction."""
    return 0.0 if getattr(guider, "use_original_formulation", False) else 1.0


def check(models: Models) -> None:
    """Raise UnsupportedPipelineError if a guider of the pipeline cannot be cut."""
    for guider in guiders_of(models.pipeline, models.facts.guided_by):
        way_of(models, guider)


def check_scale(models: Models) -> None:
    """Raise UnsupportedPipelineError if the pipeline's first guider has no scale to set."""
    guider = guiders_of(models.pipeline, models.facts.guided_by)[0]
    if not isinstance(getattr(guider, _SCALE, None), Real):
        raise UnsupportedPipelineError(
            f"cannot {models.aim} on this {models.name}: its {type(guider).__name__} has no "
            f"{_SCALE} that is a number"
        )


def way_of(models: Models, guider: Any) -> Way | None:
    """Return the way in which the guider is cut; None if it does not guide.

    Raises:
        UnsupportedPipelineError: no known way works.
    """
    try:
        step = _guided_step(guider, _STEPS)
        if step is None:
            return None
        wanted = predictions(step)
        if {*wanted} == {CONDITIONAL, UNCONDITIONAL}:
            if predictions(_changed(step, _STOP, 0.0)) == (CONDITIONAL,):
                return "stop"
        elif wanted.count(CONDITIONAL) == 1 and wanted.count(UNCONDITIONAL) == 1:
            return "scale" if _scale_changes_no_other(step, wanted) else "answer"
    except Exception as error:  # a user's own guider may raise anything
        raise _unknown(models, guider, f"{type(error).__name__}: {error}") from error
    raise _unknown(models, guider, f"it wants {', '.join(wanted)}")


def _unknown(models: Models, guider: Any, why: str) -> UnsupportedPipelineError:
    return UnsupportedPipelineError(
        f"cannot {models.aim} on this {models.name}: how its guider, a {type(guider).__name__}, is "
        f"left with the conditional prediction alone is not known ({why})"
    )


def _guided_step(guider: Any, num_timesteps: int) -> Any:
    """Return a copy of the guider in the step in which it needs the most predictions, one of them
    unconditional; None if it never needs an unconditional one."""
    steps = [step for step in _steps(guider, num_timesteps) if UNCONDITIONAL in predictions(step)]
    return max(steps, key=lambda step: len(predictions(step)), default=None)


def _steps(guider: Any, num_timesteps: int) -> Iterator[Any]:
    """Yield a copy of the guider for each step."""
    for number in range(num_timesteps):
        step = copy.copy(guider)
        step.set_state(step=number, num_inference_steps=num_timesteps, timestep=None)
        yield step


def _changed(guider: Any, name: str, value: float) -> Any:
    """Return a copy of the guider with another value for an existing attribute."""
    other = copy.copy(guider)
    getattr(other, name)  # raises AttributeError if the guider has no such attribute
    setattr(other, name, value)
    return other


def _scale_changes_no_other(step: Any, wanted: tuple[str, ...]) -> bool:
    """Return whether, at the scale without effect, the guider leaves out only the unconditional
    prediction, and combines the others as if the conditional one were in its place."""
    others = tuple(name for name in wanted if name != UNCONDITIONAL)
    rescaled = "guidance_rescale"  # it takes means over a picture, and single numbers have none
    plain = _changed(step, rescaled, 0.0) if hasattr(step, rescaled) else step
    unguided = _changed(plain, _SCALE, least_scale(plain))
    if predictions(unguided) != others:
        return False
    given = {name: float(2 + 3 * number) for number, name in enumerate(others)}
    whole = {**given, UNCONDITIONAL: given[CONDITIONAL]}
    made = [_combined(plain, whole), _combined(unguided, given)]
    return abs(made[0] - made[1]) < 1e-9


def _combined(guider: Any, given: dict[str, float]) -> float:
    combine = getattr(guider, "forward", None) or guider.construct
    return float(combine(**given)[0])


class GuiderCut:
    """A guider cut leaves the unconditional predictions of guiders out, until it is removed.

    Args:
        models: the pipeline's models.
        run: the run whose calls are changed.
    """

    holds_scale = False

    def __init__(self, models: Models, run: Run) -> None:
        self._models, self._run = models, run
        self._guiders = guiders_of(models.pipeline, models.facts.guided_by)
        self._holds: list[Hold] = []
        self._conditional: dict[str, Any] = {}
        self._calls = 0
        self._prepared: Counter[int] = Counter()
        try:
            ways = [(guider, way_of(models, guider)) for guider in self._guiders]
            for guider, way in ways:
                if way == "stop":
                    self._holds.append(run.hold(guider, _STOP, 0.0))
                elif way == "scale":
                    self._holds.append(run.hold(guider, _SCALE, least_scale(guider)))
            self._answered = [guider for guider, way in ways if way == "answer"]
            for guider in self._answered:
                counted = partial(self._prepares, guider, guider.prepare_models)
                self._holds.append(run.hold(guider, _PREPARE, counted))
            if self._answered or models.facts.verify:
                models.hook(self._answer)
        except BaseException:
            self.remove()
            raise

    def step_end(self) -> None:
        calls, self._calls = self._calls, 0
        self._conditional.clear()
        self._prepared.clear()
        whole = sum(len(predictions(guider)) for guider in self._guiders)
        with self._run.as_own():
            left = {id(guider): predictions(guider) for guider in self._guiders}
        wanted = {*map(len, left.values())}
        answered = sum(UNCONDITIONAL in left[id(guider)] for guider in self._answered)
        self._models.note(sum(map(len, left.values())) - answered, whole, "predictions")
        if not calls or self._answered:
            return
        if calls not in wanted:
            self.remove()
            self._models.mismatch(
                f"it called its denoiser {calls} times in a step",
                f"its guider wants {' or '.join(map(str, sorted(wanted)))} predictions",
            )
        self._models.remove()

    def restore(self) -> None:
        self._models.reset_all_caches()
        self.remove()

    def remove(self) -> None:
        while self._holds:
            self._holds.pop().release()
        self._conditional.clear()
        self._models.remove()

    def _answer(
        self, name: str, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        self._calls += name in self._models.facts.denoisers
        prediction = self._prediction() if self._answered else ""
        if prediction == UNCONDITIONAL and name in self._conditional:
            return self._conditional[name]
        out = call(*args, **kwargs)
        if prediction == CONDITIONAL:
            self._conditional[name] = out
        return out

    def _prepares(
        self, guider: Any, prepare: Callable[..., None], *args: Any, **kwargs: Any
    ) -> None:
        """Count a call for which the loop makes the guider prepare."""
        self._prepared[id(guider)] += 1
        prepare(*args, **kwargs)

    def _prediction(self) -> str:
        """Return the name of the prediction that the current call computes, from the count of
        prepared calls."""
        for guider in self._answered:
            count, wanted = self._prepared[id(guider)], predictions(guider)
            if 0 < count <= len(wanted):
                return str(wanted[count - 1])
        self._models.mismatch(
            "its denoiser is called without its guider", "that should prepare each call"
        )


class GuiderScale:
    """A guider scale sets another scale on guiders, until it is removed.

    Args:
        models: the pipeline's models.
        run: the run whose calls are changed.
    """

    def __init__(self, models: Models, run: Run) -> None:
        check_scale(models)
        self._run = run
        first, *others = guiders_of(models.pipeline, models.facts.guided_by)
        scale = getattr(first, _SCALE)
        #: The first guider, and others with the same scale, such as a second denoiser's.
        self._guiders = [first, *(x for x in others if getattr(x, _SCALE, None) == scale)]
        self._holds: list[Hold] = []

    def is_off(self, scale: float) -> bool:
        return not any(is_on(_changed(guider, _SCALE, scale)) for guider in self._guiders)

    def set(self, scale: float | None) -> None:
        if scale is None:
            self.remove()
            return
        if not self._holds:
            self._holds = [self._run.hold(x, _SCALE, scale) for x in self._guiders]
        for held in self._holds:
            held.value = scale

    def step_end(self) -> None:
        pass

    def remove(self) -> None:
        while self._holds:
            self._holds.pop().release()
