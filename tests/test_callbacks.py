"""Arguments of the callbacks, and what they do that the conformance suite does not look at."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from unicb import CFGCutoff, Interrupt, StepTimer, UnsupportedPipelineError, bind
from unicb.testing import Case
from unicb.testing._base import Checks
from unicb_numpy.harness import harness
from unicb_numpy.ops import StrictTensor
from unicb_numpy.pipelines import ToyPipeline


class Spying(Checks):
    harness = harness


def rows_of(pipe: ToyPipeline, *callbacks: Any, **call: Any) -> list[int]:
    with Spying().spied(pipe) as rows:
        pipe("x", **call, **bind(pipe, *callbacks))
    return rows


@pytest.mark.parametrize("arguments", [{}, {"cutoff_step_ratio": 0.4, "cutoff_step_index": 4}])
def test_cutoff_takes_exactly_one(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="exactly one"):
        CFGCutoff(**arguments)


@pytest.mark.parametrize("ratio", [-0.1, 1.01, math.nan, math.inf, 40])
def test_cutoff_ratio_out_of_range(ratio: float) -> None:
    with pytest.raises(ValueError, match=r"0\.\.1"):
        CFGCutoff(ratio)


@pytest.mark.parametrize("ratio", ["0.4", True, [0.4]])
def test_cutoff_ratio_is_no_number(ratio: Any) -> None:
    with pytest.raises(TypeError, match="cutoff_step_ratio"):
        CFGCutoff(ratio)


@pytest.mark.parametrize("make", [lambda i: CFGCutoff(cutoff_step_index=i), Interrupt])
def test_step_index(make: Any) -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        make(-1)
    for wrong in (1.0, True, "3"):
        with pytest.raises(TypeError, match="must be an int"):
            make(wrong)


@pytest.mark.parametrize(
    ("ratio", "guided"), [(0, 1), (0.0, 1), (0.1, 2), (0.4, 5), (0.29, 3), (0.9, 10), (1, 10)]
)
def test_ratio_counts_as_the_frameworks_do(pipe: ToyPipeline, ratio: float, guided: int) -> None:
    """The cut is at the end of step int(10 * ratio), so one more step than that has guidance."""
    assert rows_of(pipe, CFGCutoff(ratio)) == [2] * guided + [1] * (10 - guided)


def test_ratio_of_truncated_product(pipe: ToyPipeline) -> None:
    """int(100 * 0.29) is 28, as floating point has it and as the frameworks do."""
    rows = rows_of(pipe, CFGCutoff(0.29), num_inference_steps=100)
    assert rows.count(2) == 29


@pytest.mark.parametrize("index", [2, 3])
def test_cut_waits_for_the_second_half(index: int) -> None:
    """Steps 2 and 3 are the halves of one; half of it with guidance would be neither."""
    rows = rows_of(ToyPipeline(order=2), CFGCutoff(cutoff_step_index=index), num_inference_steps=6)
    assert rows == [2] * 4 + [1] * 7


def test_two_cutoffs_on_one_binding(pipe: ToyPipeline) -> None:
    with pytest.raises(ValueError, match="CFGCutoff and CFGCutoff"):
        bind(pipe, CFGCutoff(0.4), CFGCutoff(0.6))
    cutoff = CFGCutoff(0.4)
    with pytest.raises(ValueError, match="both decide on guidance"):
        bind(pipe, cutoff, cutoff)


def test_one_object_twice_on_one_binding(pipe: ToyPipeline) -> None:
    timer = StepTimer()
    with pytest.raises(ValueError, match="the same StepTimer object is among the callbacks twice"):
        bind(pipe, timer, CFGCutoff(0.4), timer)
    bind(pipe, StepTimer(), StepTimer())


def test_cutoff_beyond_the_last_step(pipe: ToyPipeline) -> None:
    with pytest.warns(UserWarning, match="never cuts: the run's last step is 9"):
        assert rows_of(pipe, CFGCutoff(cutoff_step_index=10)) == [2] * 10


@pytest.mark.filterwarnings("error")
def test_cutoff_at_the_last_step(pipe: ToyPipeline) -> None:
    assert rows_of(pipe, CFGCutoff(cutoff_step_index=9)) == [2] * 10


def test_denoiser_replaced_between_bind_and_run(pipe: ToyPipeline) -> None:
    callbacks = bind(pipe, CFGCutoff(0.4))
    pipe.unet = type(pipe.unet)()
    with Spying().spied(pipe) as rows:
        pipe("x", **callbacks)
    assert rows == [2] * 5 + [1] * 5
    assert "forward" not in vars(pipe.unet)


def test_interrupt_with_order_2() -> None:
    rows = rows_of(ToyPipeline(order=2), Interrupt(4), num_inference_steps=6)
    assert len(rows) == 5


def test_cutoff_knows_subclasses() -> None:
    class Mine(ToyPipeline):
        pass

    assert rows_of(Mine(), CFGCutoff(0.4)) == [2] * 5 + [1] * 5


def test_cutoff_refuses_pipeline_without_denoiser(pipe: ToyPipeline) -> None:
    pipe.unet = None  # type: ignore[assignment]
    with pytest.raises(UnsupportedPipelineError, match="has no unet"):
        bind(pipe, CFGCutoff(0.4))


def test_cutoff_refuses_rows_that_do_not_add_up() -> None:
    """Where the denoiser is not called with CFG's rows, the error comes before a wrong picture,
    and the pipeline is put back."""

    class ThreeRows(ToyPipeline):
        """Claims CFG, and runs the denoiser on one row more."""

        def __init__(self) -> None:
            super().__init__()
            plain = self.unet

            class WithExtraRow:
                def __call__(self, sample: Any, t: float, encoder_hidden_states: Any) -> Any:
                    extra = np.concatenate([sample.data, sample.data[:1]])
                    embeds = encoder_hidden_states.data
                    more = StrictTensor(np.concatenate([embeds, embeds[:1]]))
                    out = self.forward(StrictTensor(extra), t, encoder_hidden_states=more)
                    return out[: sample.shape[0]]

                def forward(self, *args: Any, **kwargs: Any) -> Any:
                    return plain.forward(*args, **kwargs)

            self.unet = WithExtraRow()  # type: ignore[assignment]

    odd = ThreeRows()
    with pytest.raises(UnsupportedPipelineError, match="with 3 rows, where guidance should give 2"):
        odd("x", **bind(odd, CFGCutoff(0.4)))
    assert "forward" not in vars(odd.unet)


def test_case_counts_rows() -> None:
    assert Case("text2img", prompts=2, images_per_prompt=3).rows == 6
