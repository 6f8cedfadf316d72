"""Guidance that changes: an interval, a schedule or a rule governs it, from the first step on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy.typing as npt
import pytest

from unicb import (
    Callback,
    CFGCutoff,
    GuidanceInterval,
    GuidanceRule,
    GuidanceSchedule,
    RuleStep,
    Step,
    bind,
)
from unicb.ops import Tensor
from unicb.testing._base import Checks, relative_error
from unicb.testing._guidance import DIFFERENT, EXACT
from unicb.testing.harness import Case


class _Latents(Callback):
    """Keep the latents at the end of each step."""

    tensors = ("latents",)

    def __init__(self) -> None:
        self.found: list[npt.NDArray[Any]] = []

    def on_step_end(self, step: Step) -> None:
        self.found.append(step.ops.to_numpy(step["latents"]))


class _Plain(GuidanceRule):
    """``_Plain`` combines the predictions by the loop's own formula."""

    def combine(
        self, unconditional: Tensor, conditional: Tensor, scale: float | Tensor, step: RuleStep
    ) -> Tensor:
        return unconditional + (conditional - unconditional) * scale


class _Conditional(GuidanceRule):
    """Return the conditional prediction; note the steps in which the rule is called, and the value
    that it keeps."""

    def __init__(self, interval: tuple[float, float] = (0.0, 1.0)) -> None:
        super().__init__(3.0, interval)
        self.asked: list[tuple[int, int, int]] = []

    def combine(
        self, unconditional: Tensor, conditional: Tensor, scale: float | Tensor, step: RuleStep
    ) -> Tensor:
        kept: list[Tensor] = step.state(self, list)
        kept.append(conditional)
        self.asked.append((step.index, step.part, len(kept)))
        return kept[-1]


class ScheduleChecks(Checks):
    def test_interval_is_exact(self) -> None:
        """Outside an interval the denoiser gets the conditional rows alone, from the first step
        on, and inside it all of them: with the pictures of computing both halves throughout."""
        for kind in self._guided_kinds("order-2"):
            pipeline, case = self.pipeline(kind), Case(kind, steps=5)
            with self.spied(pipeline) as rows:
                full = self.harness.run(pipeline, case)
            n = len(rows)  # a scheduler of order 2 has more: half steps 0 1 | 2 3 | 4 5 | …
            first, last = (2, 3) if n == case.steps else (2, 5)
            inside = [first <= call <= last for call in range(n)]
            expected = self._half_guided(pipeline, case, inside)
            assert relative_error(full, expected) > DIFFERENT, "guidance does nothing in this case"
            with self.spied(pipeline) as rows:
                interval = GuidanceInterval((first + 0.1) / n, (last + 0.1) / n)
                found = self.harness.run(pipeline, case, **bind(pipeline, interval))
            blocks = len(self.facts(pipeline).order)
            assert rows == [case.rows * (blocks if guided else 1) for guided in inside]
            assert relative_error(found, expected) < EXACT

    def test_interval_from_the_start_is_the_cutoff(self) -> None:
        """``GuidanceInterval(0, ratio)`` is ``CFGCutoff(ratio)``: same bits, same rows."""
        pipeline, case = self.pipeline(), self.case(prompts=2, steps=5)
        for ratio in (0.35, 0.55, 1.0):
            with self.spied(pipeline) as rows:
                cut = self.harness.run(pipeline, case, **bind(pipeline, CFGCutoff(ratio)))
                of_cutoff = list(rows)
                rows.clear()
                interval = bind(pipeline, GuidanceInterval(0, ratio))
                found = self.harness.run(pipeline, case, **interval)
            assert rows == of_cutoff
            assert (found == cut).all()

    def test_constant_schedule_is_a_call_with_that_scale(self) -> None:
        """Guidance of a scale that is not the call's gives the pictures of a call with that scale,
        in as many rows; where the loop has none at that scale, so has the run."""
        for kind in self._guided_kinds():
            pipeline, case = self.pipeline(kind), Case(kind, steps=3)
            full = self.harness.run(pipeline, case)
            for scale in (3.0, 1.0) if kind == self.harness.kinds[0] else (3.0,):
                with self.spied(pipeline) as rows:
                    plain = self.harness.run(pipeline, replace(case, guidance_scale=scale))
                    of_plain = list(rows)
                    rows.clear()
                    callbacks = bind(pipeline, GuidanceSchedule(scale))
                    found = self.harness.run(pipeline, case, **callbacks)
                assert rows == of_plain
                assert relative_error(found, plain) < EXACT
                assert relative_error(found, full) > DIFFERENT, "the scale does nothing here"

    def test_schedule_changes_between_two_steps(self) -> None:
        """Each step has the value at its beginning: up to the change the latents are those of a
        run with the first value, and not after it."""
        pipeline, case = self.pipeline(), self.case(steps=4)

        def latents(schedule: Any) -> list[npt.NDArray[Any]]:
            seen = _Latents()
            self.harness.run(pipeline, case, **bind(pipeline, GuidanceSchedule(schedule), seen))
            return seen.found

        found, first = latents([(0.0, 3.0), (0.5, 8.0)]), latents(3.0)
        errors = [relative_error(*pair) for pair in zip(found, first, strict=True)]
        assert [error > DIFFERENT / 10 for error in errors] == [False, False, True, True]

    def test_rule_of_plain_guidance_is_a_call_with_that_scale(self) -> None:
        """A rule that does what the loop does, with another scale, gives the pictures of a call
        with that scale, in as many rows; and leaves nothing behind."""
        for kind in self._guided_kinds("order-2"):
            pipeline, case = self.pipeline(kind), Case(kind, steps=3)
            full = self.harness.run(pipeline, case)
            before = self.harness.traces(pipeline)
            more = self.facts(pipeline).combination == "from_conditional"
            with self.spied(pipeline) as rows:
                plain = self.harness.run(pipeline, replace(case, guidance_scale=3.0))
                of_plain = list(rows)
                rows.clear()
                rule = bind(pipeline, _Plain(3.0 + more))
                found = self.harness.run(pipeline, case, **rule)
            assert rows == of_plain
            effect = relative_error(full, plain)
            assert effect > DIFFERENT, "the scale does nothing here"
            # Rounding grows with the effect of the scale, which is many deviations on a trained
            # model.
            assert relative_error(found, plain) < EXACT * max(1.0, effect)
            assert self.harness.traces(pipeline) == before
            assert (self.harness.run(pipeline, case) == full).all()

    def test_rule_is_asked_in_each_step_with_guidance(self) -> None:
        """A rule gets both predictions of each step with guidance, and the loop goes on with what
        it makes of them; what it keeps is kept for one run. Where guidance is cut, it is not
        asked."""
        for kind in self._guided_kinds():
            pipeline, case = self.pipeline(kind), Case(kind, steps=4)
            expected = self._half_guided(pipeline, case, [False] * case.steps)
            rule = _Conditional()
            callbacks = bind(pipeline, rule)
            for _ in range(2):
                rule.asked.clear()
                found = self.harness.run(pipeline, case, **callbacks)
                assert relative_error(found, expected) < EXACT
                assert rule.asked == [(index, 0, index + 1) for index in range(case.steps)]
            part = _Conditional((0.3, 0.5))
            with self.spied(pipeline) as rows:
                found = self.harness.run(pipeline, case, **bind(pipeline, part))
            blocks = len(self.facts(pipeline).order)
            assert rows == [case.rows * (blocks if 1 <= i <= 2 else 1) for i in range(case.steps)]
            assert part.asked == [(1, 0, 1), (2, 0, 2)]
            assert relative_error(found, expected) < EXACT

    def test_guidance_that_changes_leaves_nothing_behind(self) -> None:
        """After guidance was off, on, of another scale and off again, the pipeline carries no hook
        and no attribute that it did not before; and a plain run has the bits of one before."""
        for kind in self._guided_kinds():
            pipeline, case = self.pipeline(kind), Case(kind)
            plain = self.harness.run(pipeline, case)
            before = self.harness.traces(pipeline)
            changing = GuidanceSchedule([(0.0, 1.0), (0.25, 3.0), (0.75, 1.0)])
            self.harness.run(pipeline, case, **bind(pipeline, changing))
            assert self.harness.traces(pipeline) == before
            assert (self.harness.run(pipeline, case) == plain).all()

    def test_acts_before_the_first_step(self) -> None:
        """A callback that asks for it is called once, before the denoiser computes anything; and
        what fails there reaches the caller and leaves nothing."""
        pipeline, case = self.pipeline(), self.case(steps=2)
        self.harness.run(pipeline, case)
        before = self.harness.traces(pipeline)
        computed: list[int] = []

        class Early(Callback):
            fails = False

            def before_first_step(self, step: Step) -> None:
                assert step.index == -1
                computed.append(len(rows))
                if self.fails:
                    raise ArithmeticError("before the first step")

            def on_step_end(self, step: Step) -> None: ...

        early = Early()
        callbacks = bind(pipeline, early)
        with self.spied(pipeline) as rows:
            self.harness.run(pipeline, case, **callbacks)
            assert computed == [0]
            early.fails = True
            with pytest.raises(ArithmeticError, match="before the first step"):
                self.harness.run(pipeline, case, **callbacks)
        assert computed == [0, len(rows)]
        assert self.harness.traces(pipeline) == before

    def _guided_kinds(self, *more: str) -> list[str]:
        """Return the first kind, a kind whose loop keeps a copy of its scale, and those of ``more``
        that the harness has. Cuts are checked on every kind elsewhere."""
        kinds = self.harness.kinds
        scales = {kind: self.facts(self.pipeline(kind)).guidance_scale for kind in kinds}
        copies = [kind for kind in kinds if scales[kind] == "local"]
        return [kinds[0], *copies[:1], *(kind for kind in kinds if kind in more)]

    def _half_guided(self, pipeline: Any, case: Case, guided: list[bool]) -> npt.NDArray[Any]:
        """Compute both halves in each call, and replace the unconditional one in calls that are not
        guided."""

        def change(call: int, out: Any) -> Any:
            return out if guided[call] else self.conditional_only(pipeline, out)

        with self.spied(pipeline, change):
            return self.harness.run(pipeline, case)
