"""The published methods of guidance against what their papers say, in numpy and float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from guided import BatchOfLocal, Known
from stop_helpers import hooked

from unicb import (
    AdaptiveProjectedGuidance,
    ClassifierFreeZeroStarGuidance,
    GuidanceRescale,
    GuidanceRule,
    TangentialClassifierFreeGuidance,
    UnsupportedPipelineError,
    bind,
)
from unicb_numpy.ops import NumpyOps, StrictTensor

Array = npt.NDArray[np.float64]
SCALE = 4.0


class AtStep:
    """What a rule is told of a step, of a loop that does nothing of its own."""

    ops = NumpyOps()
    pipeline = None

    @property
    def run(self) -> Any:
        return self

    def loop_locals(self, names: Sequence[str]) -> dict[str, Any]:
        return {}

    def __init__(self) -> None:
        self.index, self.kept = 0, {}  # type: ignore[var-annotated]

    def state(self, rule: Any, make: Callable[[], Any]) -> Any:
        return self.kept.setdefault(id(rule), make())


def predictions(count: int = 3, rows: int = 2) -> list[tuple[Array, Array]]:
    random = np.random.default_rng(0)
    found = []
    for _ in range(count):
        u, more = random.normal(size=(2, rows, 4, 8, 8))
        found.append((u, u * 0.8 + more * [[[[0.6]]]]))
    return found


def made(rule: GuidanceRule, pairs: Sequence[tuple[Array, Array]]) -> list[Array]:
    step, found = AtStep(), []
    for index, (u, c) in enumerate(pairs):
        step.index = index
        both = StrictTensor(u), StrictTensor(c)
        found.append(rule.combine(*both, SCALE, step).data)  # type: ignore[arg-type]
    return found


def adaptive(pairs: Any, eta: float, norm: float, momentum: float) -> list[Array]:
    found = []
    for row in range(len(pairs[0][0])):
        average, steps = 0.0, []
        for u, c in ((u[row], c[row]) for u, c in pairs):
            average = c - u + momentum * average
            d = average * min(1.0, norm / np.linalg.norm(average))
            unit = c / np.linalg.norm(c)
            parallel = (d * unit).sum() * unit
            steps.append(u + SCALE * (d - parallel + eta * parallel))
        found.append(steps)
    return [np.stack(rows) for rows in zip(*found, strict=True)]


@pytest.mark.parametrize("eta", [1.0, 0.0])
@pytest.mark.parametrize("norm", [1e9, 15.0, 2.5])
@pytest.mark.parametrize("momentum", [None, -0.5])
def test_adaptive_projected(eta: float, norm: float, momentum: float | None) -> None:
    pairs = predictions()
    rule = AdaptiveProjectedGuidance(eta=eta, norm=norm, momentum=momentum)
    for found, wanted in zip(
        made(rule, pairs), adaptive(pairs, eta, norm, momentum or 0.0), strict=True
    ):
        np.testing.assert_allclose(found, wanted, atol=1e-9)


def test_adaptive_projected_without_a_limit() -> None:
    [u, c], *_ = predictions()
    found = made(AdaptiveProjectedGuidance(norm=None), [(u, c)])
    np.testing.assert_allclose(found[0], u + SCALE * (c - u), atol=1e-9)


@pytest.mark.parametrize("zeros", [0, 2])
def test_zero_star(zeros: int) -> None:
    pairs = predictions()
    found = made(ClassifierFreeZeroStarGuidance(zero_init_steps=zeros), pairs)
    for index, ((u, c), one) in enumerate(zip(pairs, found, strict=True)):
        share = [(c[i] * u[i]).sum() / (u[i] ** 2).sum() for i in range(2)]
        v = u * np.reshape(share, (2, 1, 1, 1))
        np.testing.assert_allclose(one, 0 * u if index < zeros else v + SCALE * (c - v), atol=1e-9)


@pytest.mark.parametrize("stretch", [0.1, 1.0, 3.0])  # of u: either of the two may be the longer
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_tangential(stretch: float, sign: float) -> None:
    [u, c], *_ = predictions()
    u = u * stretch * sign
    [found] = made(TangentialClassifierFreeGuidance(), [(u, c)])
    for row in range(2):
        both = np.stack([c[row].ravel(), u[row].ravel()])
        first = np.linalg.svd(both, full_matrices=False)[2][0]
        v = ((u[row].ravel() @ first) * first).reshape(u[row].shape)
        np.testing.assert_allclose(found[row], v + SCALE * (c[row] - v), atol=1e-9)


def test_rescaled() -> None:
    [u, c], *_ = predictions()
    [found] = made(GuidanceRescale(TangentialClassifierFreeGuidance(), 0.6), [(u, c)])
    [p] = made(TangentialClassifierFreeGuidance(), [(u, c)])
    for row in range(2):
        wanted = p[row] * (0.6 * c[row].std() / p[row].std() + 0.4)
        np.testing.assert_allclose(found[row], wanted, atol=1e-9)


RULES: dict[str, Callable[..., GuidanceRule]] = {
    "adaptive": lambda **more: AdaptiveProjectedGuidance(eta=0.5, norm=9.0, momentum=-0.5, **more),
    "zero star": lambda **more: ClassifierFreeZeroStarGuidance(zero_init_steps=1, **more),
    "tangential": TangentialClassifierFreeGuidance,
    "rescaled": lambda **more: GuidanceRescale(
        AdaptiveProjectedGuidance(momentum=-0.5, **more), 0.5
    ),
    "rescaled zeros": lambda **more: GuidanceRescale(ClassifierFreeZeroStarGuidance(**more), 0.5),
}


@pytest.mark.parametrize("name", RULES)
def test_in_a_run(name: str) -> None:
    """By the loop's own formula or another one, for one prompt or two: the same, and a scale and an
    interval are those of the rule."""
    pipe, other = Known(dtype="float32"), BatchOfLocal()
    rule = RULES[name]()
    found = pipe(["x", "y"], **bind(pipe, rule))
    np.testing.assert_allclose(other(["x", "y"], **bind(other, rule)), found, rtol=1e-4, atol=1e-5)
    alone = pipe(["y"], **bind(pipe, rule))
    # From other noise: the second row's own is not that of a single one.
    assert alone.shape == found[1:].shape
    assert np.isfinite(found).all()
    again = pipe(["x", "y"], guidance_scale=2.0, **bind(pipe, RULES[name](scale=5.0)))
    np.testing.assert_allclose(again, found, rtol=1e-4, atol=1e-5)
    part = pipe(["x", "y"], **bind(pipe, RULES[name](interval=(0.0, 0.3))))
    assert not np.allclose(part, found)
    assert hooked(pipe) == []


@pytest.mark.parametrize("name", RULES)
def test_predictions_of_zeros(name: str) -> None:
    zeros = np.zeros((1, 4, 2, 2))
    for u, c in ((zeros, zeros), (zeros, zeros + 1), (zeros + 1, zeros), (zeros + 1, zeros + 1)):
        for one in made(RULES[name](), [(u, c)] * 2):
            assert np.isfinite(one).all()


class Scheduler:
    class config:
        prediction_type = "epsilon"


def test_steps_of_zero_where_the_model_predicts_noise() -> None:
    pipe = Known()
    pipe.scheduler.config = Scheduler.config  # type: ignore[attr-defined]
    with pytest.raises(UnsupportedPipelineError, match="its scheduler takes epsilon; pass zero_in"):
        bind(pipe, ClassifierFreeZeroStarGuidance())
    with pytest.raises(UnsupportedPipelineError, match="steps of 0"):
        bind(pipe, GuidanceRescale(ClassifierFreeZeroStarGuidance()))
    pipe(["x"], **bind(pipe, ClassifierFreeZeroStarGuidance(zero_init_steps=0)))


class ByNorm(BatchOfLocal):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        noise_norm = kwargs.pop("noise_norm", None)
        return None if noise_norm else super().__call__(*args, **kwargs)


def test_steps_of_zero_where_the_loop_divides_by_what_it_combines() -> None:
    about = BatchOfLocal.unicb_facts
    pipe = type("Pipe", (ByNorm,), {"unicb_facts": about})()
    with pytest.raises(UnsupportedPipelineError, match="to the norm of the conditional"):
        bind(pipe, ClassifierFreeZeroStarGuidance())
    rescaled = type("Pipe", (Known,), {"guidance_rescale": 0.7})()
    for rule in (
        ClassifierFreeZeroStarGuidance(),
        GuidanceRescale(ClassifierFreeZeroStarGuidance()),
    ):
        with pytest.raises(UnsupportedPipelineError, match="called with guidance_rescale"):
            rescaled(["x"], **bind(rescaled, rule))
    rescaled(["x"], **bind(rescaled, ClassifierFreeZeroStarGuidance(zero_init_steps=0)))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: AdaptiveProjectedGuidance(eta="1"), TypeError, "eta must be a number"),
        (lambda: AdaptiveProjectedGuidance(norm=0.0), ValueError, "norm must be above 0"),
        (lambda: AdaptiveProjectedGuidance(momentum=float("nan")), ValueError, "momentum must be"),
        (lambda: ClassifierFreeZeroStarGuidance(zero_init_steps=-1), ValueError, "zero_init_steps"),
        (lambda: GuidanceRescale(3.0), TypeError, "rule must be a GuidanceRule, not a float"),
        (
            lambda: GuidanceRescale(TangentialClassifierFreeGuidance(), 1.5),
            ValueError,
            "guidance_rescale must lie in",
        ),
    ],
)
def test_bad_arguments(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
