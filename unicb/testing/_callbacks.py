"""Callbacks: each reads, keeps, corrects or replaces what the loop computes with."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from unicb import (
    Callback,
    IPAdapterCutoff,
    LatentCorrection,
    LatentsNotFiniteError,
    NaNGuard,
    Progress,
    PromptSchedule,
    PromptWeights,
    Step,
    StepTimer,
    Trajectory,
    bind,
    initial_latents,
    load_trajectory,
)
from unicb.ops import Tensor
from unicb.pipelines.source import CallSource
from unicb.testing._base import Checks
from unicb.testing.harness import Case, Harness

Array = npt.NDArray[Any]

#: Relative rounding error of a number, by dtype, and (nearly) the largest finite number.
_EPSILON = {"bfloat16": 2.0**-7, "float16": 2.0**-10, "float32": 2.0**-23, "float64": 2.0**-52}
_LARGE = {"bfloat16": 3e38, "float16": 65504.0, "float32": 3e38, "float64": 1e308}
#: Prompts encoded in batches of another size may be rounded otherwise; in the embeddings' units.
_ENCODED = 1e-4


class Recast(Callback):
    """Show latents of another dtype to the callbacks between this one and :attr:`back`.

    Attributes:
        shown: host copies of the latents of each step in that dtype.
        back: a callback that gives the loop its own latents back, and notes in ``found`` the
            latents that it got.
    """

    tensors = ("latents",)

    def __init__(self, harness: Harness, dtype: str, value: float | None = None, at: int = 2):
        self._harness, self._dtype, self._value, self._at = harness, dtype, value, at
        self.shown: list[Array] = []
        self.found: list[Array] = []
        self.own: Tensor = None
        self.back = _Back(self)

    def on_step_end(self, step: Step) -> None:
        self.own = step["latents"]
        host = step.ops.to_numpy(self.own).astype(np.float64)
        if self._value is not None and step.index == self._at:
            host[-1, 0, 0, :2] = self._value
        step["latents"] = self._harness.tensor(host, self._dtype)
        self.shown.append(step.ops.to_numpy(step["latents"]))


class _Back(Callback):
    tensors = ("latents",)

    def __init__(self, recast: Recast) -> None:
        self._recast = recast

    def on_step_end(self, step: Step) -> None:
        self._recast.found.append(step.ops.to_numpy(step["latents"]))
        step["latents"] = self._recast.own


class CallbacksChecks(Checks):
    def test_trajectory_holds_the_latents(self, dtype: str, tmp_path: Path) -> None:
        """The file has every step's latents to the bit, in every dtype (bfloat16 as float32), and
        recording them changes nothing."""
        pipeline, case = self.pipeline(), self.case(prompts=2)
        plain = self.harness.run(pipeline, case)
        recast, path = Recast(self.harness, dtype), tmp_path / "run.npz"
        callbacks = bind(pipeline, recast, Trajectory(path), recast.back)
        out = self.harness.run(pipeline, case, **callbacks)
        found = load_trajectory(path)
        assert found.latents.dtype == ("float32" if dtype == "bfloat16" else dtype)
        assert (found.latents == np.stack(recast.shown)).all()
        assert found.steps.tolist() == list(range(case.steps))
        assert (out == plain).all()

    def test_guard_finds_bad_values(self, dtype: str) -> None:
        """NaN and either infinity end the run at the step that has them, in every dtype, and are
        counted; the largest finite numbers pass, and change nothing."""
        pipeline, case = self.pipeline(), self.case(prompts=2)
        plain = self.harness.run(pipeline, case)
        recast = Recast(self.harness, dtype, np.inf)
        with pytest.raises(LatentsNotFiniteError, match="in the pictures 1 of 2") as caught:
            self.harness.run(pipeline, case, **bind(pipeline, recast, NaNGuard(), recast.back))
        assert (caught.value.step, caught.value.share) == (2, 2 / plain.size)
        callbacks: list[Callback] = []
        for value in (np.nan, np.inf, -np.inf, _LARGE[dtype], -_LARGE[dtype]):
            recast = Recast(self.harness, dtype, value)
            callbacks += [recast, NaNGuard("warn"), recast.back]
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            out = self.harness.run(pipeline, case, **bind(pipeline, *callbacks))
        bad = [str(w.message) for w in warned if "latents are not finite" in str(w.message)]
        assert [text.partition("(2 ")[2].partition(")")[0] for text in bad] == [
            "NaN",
            "infinite",
            "infinite",
        ]
        assert all("after step 2 of 4" in text for text in bad)
        assert (out == plain).all()

    def test_correction_is_numpys(self, dtype: str) -> None:
        """Latents centred, softly clamped and stretched are those that numpy makes in float64, to
        within the dtype's rounding."""
        pipeline, case = self.pipeline(), self.case(prompts=2)
        recast = Recast(self.harness, dtype)
        correction = LatentCorrection(centre=0.5, clamp=1.5, stretch=2.0)
        self.harness.run(pipeline, case, **bind(pipeline, recast, correction, recast.back))
        assert len(recast.found) == case.steps
        for shown, found in zip(recast.shown, recast.found, strict=True):
            expected = _corrected(shown.astype(np.float64), 0.5, 1.5, 2.0)
            within = 16 * _EPSILON[dtype] * np.abs(expected).max()
            # The bound and the range are computed on the host, and passed on in float32.
            within = max(within, 16 * _EPSILON["float32"] * np.abs(expected).max())
            assert np.abs(found - expected).max() <= within
            assert np.abs(shown - expected).max() > within

    def test_steps_are_timed_and_told(self) -> None:
        """A timer that waits for the device has every step; so has a display of the progress; the
        latents are bit-identical."""
        pipeline, case = self.pipeline(), self.case()
        plain = self.harness.run(pipeline, case)
        timer, states = StepTimer(), []  # type: ignore[var-annotated]
        out = self.harness.run(pipeline, case, **bind(pipeline, timer, Progress(states.append)))
        assert timer.times is not None
        assert timer.times.first > 0
        assert len(timer.times.seconds) == case.steps - 1
        assert [state.step for state in states] == list(range(case.steps))
        assert states[-1].remaining == 0
        assert (out == plain).all()

    def test_other_prompts_reach_the_loop(self) -> None:
        """Another prompt for each picture, one for all, and a blend are in the conditional rows
        from their step on, and in no others, where the harness has a kind "prompts"."""
        for pipeline, case in self._listed("prompts", prompts=2, images_per_prompt=2):
            one_each, others = self._with(pipeline, case, PromptSchedule([(0.5, ["one", "two"])]))
            called, *later = one_each
            for rows in later:
                assert np.abs(rows - later[-1]).max() == 0
            one, same, two, again = later[-1]
            assert np.abs(one - same).max() == np.abs(two - again).max() == 0
            apart = min(np.abs(row - called).max(axis=1).min() for row in (one, two))
            assert min(apart, np.abs(one - two).max()) > 10 * _ENCODED
            assert others == 0
            for_all, others = self._with(pipeline, case, PromptSchedule([(0.25, "one")]))
            assert np.abs(for_all[-1] - one).max() < _ENCODED
            assert others == 0
            blend, others = self._with(pipeline, case, PromptWeights({"one": 1, "two": 3}))
            assert np.abs(blend[-1] - (0.25 * one + 0.75 * two)).max() < _ENCODED
            assert others == 0

    def test_adapter_is_switched_off(self) -> None:
        """The latents are those of the pipeline's own method called at the end of the same step,
        and the next run has the adapter's scale of before, where there is a kind "ip-adapter"."""
        for pipeline, case in self._listed("ip-adapter"):

            def by_hand(pipe: Any, index: int, timestep: Any, tensors: dict[str, Tensor]) -> None:
                if index == 1:
                    pipe.set_ip_adapter_scale(0.0)

            plain = self.harness.run(pipeline, case)
            other = self.harness.build(case.kind)
            expected = self.harness.run(other, case, **bind(other, by_hand))
            assert not (expected == plain).all(), "the adapter does nothing in this case"
            callbacks = bind(pipeline, IPAdapterCutoff(cutoff_step_index=1))
            assert (self.harness.run(pipeline, case, **callbacks) == expected).all()
            assert (self.harness.run(pipeline, case) == plain).all()

    def test_initial_latents_are_numpys(self) -> None:
        """Initial latents in float32, where the first kind's call takes latents, have the bits that
        numpy draws, a picture's do not depend on the others, and the run starts from them."""
        pipeline = self.pipeline()
        if "latents" not in CallSource.of(type(pipeline)).parameters:
            return
        to_numpy = self.harness.backend.ops.to_numpy
        latents = initial_latents(pipeline, seed=7, batch=2)
        drawn = np.random.default_rng(7).normal(size=tuple(latents.shape)).astype(np.float32)
        assert to_numpy(latents).dtype == np.float32
        assert (to_numpy(latents) == drawn).all()
        first = initial_latents(pipeline, seed=7)
        assert (to_numpy(first)[0] == drawn[0]).all()
        outs = [
            self.harness.run(pipeline, self.case(), latents=start)
            for start in (first, first, initial_latents(pipeline, seed=8))
        ]
        assert (outs[0] == outs[1]).all()
        assert not (outs[0] == outs[2]).all()

    def _listed(self, kind: str, **settings: Any) -> Iterator[tuple[Any, Case]]:
        """Yield a pipeline of this kind and a case, if the harness lists the kind."""
        if kind in self.harness.kinds:
            yield self.pipeline(kind), Case(kind, **settings)

    def _with(self, pipeline: Any, case: Case, callback: Callback) -> tuple[list[Array], float]:
        """Return the conditional rows of ``prompt_embeds`` after the callback at the end of each
        step, and the largest change of the other rows."""
        found: list[Array] = []

        class Look(Callback):
            tensors = ("prompt_embeds",)

            def on_step_end(self, step: Step) -> None:
                found.append(step.ops.to_numpy(step["prompt_embeds"]))

        self.harness.run(pipeline, case, **bind(pipeline, callback, Look()))
        order = self.facts(pipeline).order if len(found[0]) > case.rows else ("conditional",)
        blocks = [np.split(rows, len(order)) for rows in found]
        mine = order.index("conditional")
        others = [block for i, block in enumerate(zip(*blocks, strict=True)) if i != mine]
        changed = max(
            (float(np.abs(b - block[0]).max()) for block in others for b in block), default=0.0
        )
        return [block[mine] for block in blocks], changed


def _corrected(x: Array, centre: float, clamp: float, stretch: float) -> Array:
    """Compute the formulas in LatentCorrection's docstring."""
    x = x - centre * x.mean(axis=(2, 3), keepdims=True)
    size = np.sqrt((x**2).mean(axis=(1, 2, 3), keepdims=True))
    knee = 0.875 * clamp * size
    over = np.abs(x) - np.minimum(np.abs(x), knee)
    bent = np.sign(x) * (np.minimum(np.abs(x), knee) + over / (1 + over / (clamp * size - knee)))
    largest = np.abs(bent).max(axis=(1, 2, 3), keepdims=True)
    return np.asarray(bent * np.maximum(1, stretch * size / largest))
