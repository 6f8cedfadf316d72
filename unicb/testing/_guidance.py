"""CFG cutoff: a cut is exact against computing both halves, at half the work, and leaves nothing
behind."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import pytest

from unicb import Callback, CFGCutoff, Step, bind
from unicb.ops import Tensor
from unicb.testing._base import Checks, relative_error
from unicb.testing.harness import Case

#: Dropping rows may only change the order of sums in float32 matrix products. Measured: at most
#: 1.1e-6 on torch 2.13.0 CPU, 0 on MindSpore 2.7.0 CPU, over all kinds and batches of the suite.
EXACT = 1e-5
#: A picture with cut guidance must differ from one without by far more than rounding. The least
#: difference measured is for a cut before the last step: 1e-3 on torch; elsewhere it is above 7e-3.
DIFFERENT = 1e-4
#: Batches: number of prompts x images per prompt.
BATCHES = ("1x1", "2x1", "1x2", "2x2")


class GuidanceChecks(Checks):
    def test_cut_is_exact(self, kind: str, batch: str) -> None:
        """After the cut, pictures are those of computing both halves and using one, and the
        denoiser gets half the rows: for one and two prompts, one and two images of each."""
        prompts, images = (int(part) for part in batch.split("x"))
        if prompts > 1 and kind in self.harness.single_prompt_kinds:
            prompts, images = 1, 3
        self._check_cut(Case(kind, prompts, images), index=1)

    def test_conditional_row_is_conditional(self, kind: str) -> None:
        """The rows that a cut keeps are those that the denoiser gives with guidance off."""
        pipeline = self.pipeline(kind)
        facts = self.facts(pipeline)
        ops = self.harness.backend.ops

        def first_output(guidance_scale: float) -> Any:
            outputs: list[Any] = []

            def keep(call: int, out: Any) -> Any:
                outputs.append(self.sample_of(out))
                return out

            with self.spied(pipeline, keep):
                self.harness.run(pipeline, Case(kind, guidance_scale=guidance_scale, steps=1))
            return outputs[0]

        guided, conditional = first_output(5.0), first_output(1.0)
        kept = ops.chunk(guided, len(facts.order))[facts.order.index("conditional")]
        assert relative_error(ops.to_numpy(kept), ops.to_numpy(conditional)) < EXACT

    @pytest.mark.parametrize("index", [0, 2])
    def test_cut_after_first_and_before_last_step(self, index: int) -> None:
        """The cut may come as early as the end of the first step and as late as before the last."""
        self._check_cut(self.case(prompts=2), index=index)

    @pytest.mark.parametrize("cutoff", [{"cutoff_step_index": 3}, {"cutoff_step_ratio": 1.0}])
    def test_cut_at_last_step_changes_nothing(self, cutoff: dict[str, Any]) -> None:
        """A cut at the last step or never leaves the run as it is, to the bit."""
        pipeline, case = self.pipeline(), self.case(prompts=2)
        plain = self.harness.run(pipeline, case)
        with self.spied(pipeline) as rows:
            cut = self.harness.run(pipeline, case, **bind(pipeline, CFGCutoff(**cutoff)))
        assert rows == [4, 4, 4, 4]
        assert (cut == plain).all()

    def test_ratio_cuts_at_truncated_step(self) -> None:
        """A ratio cuts at the end of step ``int(num_timesteps * ratio)``, which is not rounded."""
        pipeline, case = self.pipeline(), self.case(steps=5)
        with self.spied(pipeline) as rows:
            self.harness.run(pipeline, case, **bind(pipeline, CFGCutoff(0.55)))
            self.harness.run(pipeline, case, **bind(pipeline, CFGCutoff(0.35)))
        assert rows == [2, 2, 2, 1, 1, 2, 2, 1, 1, 1]

    def test_cut_waits_for_a_whole_step(self) -> None:
        """The cut comes after a whole step with a scheduler of order 2, also where the index is
        that of its first half; with one of order 1, it comes where the index is."""
        for kind in {self.harness.kinds[0], "order-2"} & set(self.harness.kinds):
            pipeline, case = self.pipeline(kind), Case(kind, prompts=2)
            whole: list[bool] = []

            class Watch(Callback):
                def on_step_end(self, step: Step, whole: list[bool] = whole) -> None:
                    whole.append(step.is_whole)

            self.harness.run(pipeline, case, **bind(pipeline, Watch()))
            assert (kind == "order-2") == (False in whole[:-1])
            for asked in (0, 1, 2):
                self._check_cut(case, asked, cut_at=whole.index(True, asked))

    def test_reset_caches_leaves_nothing_behind(self, kind: str) -> None:
        """Models whose caches are reset are as before, and answer as before."""
        pipeline, case = self.pipeline(kind), Case(kind)
        plain = self.harness.run(pipeline, case)
        before = self.harness.traces(pipeline)
        facts = self.facts(pipeline)
        for name in (*facts.denoisers, *facts.companions):
            self.harness.backend.reset_caches(getattr(pipeline, name))
        assert self.harness.traces(pipeline) == before
        assert (self.harness.run(pipeline, case) == plain).all()

    def test_guidance_off_is_left_alone(self) -> None:
        """A run without guidance has nothing to cut: same bits, same rows."""
        pipeline, case = self.pipeline(), self.case(prompts=2, guidance_scale=1.0)
        plain = self.harness.run(pipeline, case)
        with self.spied(pipeline) as rows:
            cut = self.harness.run(pipeline, case, **bind(pipeline, CFGCutoff(0.0)))
        assert rows == [2, 2, 2, 2]
        assert (cut == plain).all()

    def test_two_runs_on_one_binding(self) -> None:
        """A binding cuts each of its runs anew, and a plain run in between has full guidance."""
        pipeline, case = self.pipeline(), self.case(prompts=2)
        callbacks = bind(pipeline, CFGCutoff(cutoff_step_index=1))
        plain = self.harness.run(pipeline, case)
        with self.spied(pipeline) as rows:
            first = self.harness.run(pipeline, case, **callbacks)
            between = self.harness.run(pipeline, case)
            second = self.harness.run(pipeline, case, **callbacks)
        cut_run = [4, 4, 2, 2]
        assert rows == [*cut_run, 4, 4, 4, 4, *cut_run]
        assert (first == second).all()
        assert (between == plain).all()

    def test_cut_leaves_nothing_behind(self, kind: str) -> None:
        """After a cut run the pipeline carries no hook and no attribute that it did not before."""
        pipeline, case = self.pipeline(kind), Case(kind)
        self.harness.run(pipeline, case)
        before = self.harness.traces(pipeline)
        self.harness.run(pipeline, case, **bind(pipeline, CFGCutoff(cutoff_step_index=0)))
        assert self.harness.traces(pipeline) == before

    def test_documented_recipe(self) -> None:
        """The recipe in the frameworks' guides (chunk the embeddings, set ``_guidance_scale``
        to 0) runs as a plain function, and does what CFGCutoff does."""
        pipeline, case = self.pipeline(), self.case(prompts=2)
        ops = self.harness.backend.ops

        def recipe(
            pipe: Any, step_index: int, timestep: Any, callback_kwargs: dict[str, Tensor]
        ) -> dict[str, Tensor]:
            if step_index == 1:
                embeds = callback_kwargs["prompt_embeds"]
                callback_kwargs["prompt_embeds"] = ops.chunk(embeds, 2)[-1]
                pipe._guidance_scale = 0.0
            return callback_kwargs

        with self.spied(pipeline) as rows:
            callbacks = bind(pipeline, recipe, tensor_inputs=["prompt_embeds"])
            out = self.harness.run(pipeline, case, **callbacks)
        assert rows == [4, 4, 2, 2]
        assert relative_error(out, self._reference(pipeline, case, 1)) < EXACT

    def _check_cut(self, case: Case, index: int, cut_at: int | None = None) -> None:
        """Check that the run with a cutoff index equals the reference that is cut at the end of
        step ``cut_at``."""
        pipeline = self.pipeline(case.kind)
        cut_at = index if cut_at is None else cut_at
        expected = self._reference(pipeline, case, cut_at)
        full = self.harness.run(pipeline, case)
        assert relative_error(full, expected) > DIFFERENT, "guidance does nothing in this case"
        with self.spied(pipeline) as rows:
            callbacks = bind(pipeline, CFGCutoff(cutoff_step_index=index))
            out = self.harness.run(pipeline, case, **callbacks)
        facts = self.facts(pipeline)
        guided = [len(facts.order) * case.rows] * (cut_at + 1)
        assert rows == guided + [case.rows] * (len(rows) - len(guided))
        assert len(rows) > len(guided)
        assert relative_error(out, expected) < EXACT

    def _reference(self, pipeline: Any, case: Case, index: int) -> npt.NDArray[Any]:
        """Compute both halves to the end, with the unconditional one replaced after the cut."""

        def change(call: int, out: Any) -> Any:
            return out if call <= index else self.conditional_only(pipeline, out)

        with self.spied(pipeline, change):
            return self.harness.run(pipeline, case)
