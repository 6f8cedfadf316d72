"""Pipelines that the data files do not know: what their code tells, and how that is verified."""

from __future__ import annotations

import gc
import logging
from typing import Any

import loops
import numpy as np
import pytest

from unicb import Callback, CFGCutoff, PipelineFacts, Step, UnsupportedPipelineError, bind
from unicb.guidance._inference import infer
from unicb.testing._base import Checks
from unicb_numpy.harness import harness
from unicb_numpy.pipelines import ToyPipeline

PROMPTS = ["a dog", "a cat"]


class Spying(Checks):
    harness = harness


def rows_of(pipe: Any) -> tuple[list[int], Any]:
    with Spying().spied(pipe) as rows:
        out = pipe(PROMPTS, **bind(pipe, CFGCutoff(cutoff_step_index=1)))
    return rows, out


def conditional_after(pipe: Any, index: int) -> Any:
    """The same run, with guidance at a scale of 1 after the step: conditional alone."""

    def callback(pipe: Any, i: int, t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if i == index:
            pipe._guidance_scale = 1.0
        return tensors

    return pipe(PROMPTS, callback_on_step_end=callback)


@pytest.mark.parametrize(
    ("kind", "cfg", "order"),
    [
        (ToyPipeline, "batch", ("unconditional", "conditional")),
        (loops.ConditionalFirst, "batch", ("conditional", "unconditional")),
        (loops.Switched, "switch", ("conditional", "unconditional")),
        (loops.LocalFlag, "calls", ("conditional", "unconditional")),
    ],
)
def test_code_tells(kind: type, cfg: str, order: tuple[str, ...]) -> None:
    facts = infer(kind)
    assert facts is not None
    assert (facts.cfg, facts.order, facts.denoisers) == (cfg, order, ("unet",))
    assert facts.verify


@pytest.mark.parametrize("kind", [loops.Unclear, loops.UnconditionalFirst, loops.LoopPipeline])
def test_unclear_code_tells_nothing_wrong(kind: type) -> None:
    """A class that has no loop of its own is known by the one that it inherits."""
    facts = infer(kind)
    assert (facts is None) == (kind is not loops.LoopPipeline)


def test_told_batch_is_cut_exactly() -> None:
    pipe = loops.ConditionalFirst()
    rows, out = rows_of(pipe)
    assert rows == [4, 4, 2, 2, 2]
    assert np.abs(out - conditional_after(pipe, 1)).max() < 1e-6


@pytest.mark.parametrize("kind", [loops.Switched, loops.LocalFlag])
def test_told_calls_are_cut_exactly(kind: type) -> None:
    pipe = kind()
    rows, out = rows_of(pipe)
    assert rows == [2] * (2 * 2 + 3)
    assert pipe._guidance_scale == 5.0
    assert "forward" not in vars(pipe.unet)
    reference = loops.Switched()
    assert np.abs(out - conditional_after(reference, 1)).max() < 1e-6


@pytest.mark.parametrize("kind", [loops.Unclear, loops.UnconditionalFirst])
def test_unclear_class_is_refused_at_bind(kind: type) -> None:
    with pytest.raises(UnsupportedPipelineError) as caught:
        bind(kind(), CFGCutoff(0.4))
    for part in (kind.__name__, "its code does not tell", "unicb_facts"):
        assert part in str(caught.value)


def test_class_says_it_itself() -> None:
    class Clear(loops.Unclear):
        unicb_facts = PipelineFacts(source="this test", denoisers=("unet",))

    rows, out = rows_of(Clear())
    assert rows == [4, 4, 2, 2, 2]
    assert np.abs(out - conditional_after(Clear(), 1)).max() < 1e-6


def test_rows_in_another_order_are_noticed() -> None:
    """The code looks like two blocks; the rows are in pairs. An error, before a wrong picture."""
    pipe = loops.Interleaved()
    with pytest.raises(UnsupportedPipelineError, match=r"was not seen to be u \+ g \* \(c - u\)"):
        rows_of(pipe)
    assert "forward" not in vars(pipe.unet)


def test_switch_that_does_not_switch_is_noticed() -> None:
    pipe = loops.StuckSwitch()
    with pytest.raises(UnsupportedPipelineError, match="2 times in a step"):
        rows_of(pipe)
    assert "forward" not in vars(pipe.unet)


def test_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    class Fresh(loops.ConditionalFirst):
        __call__ = loops.ConditionalFirst.__call__

    with caplog.at_level(logging.WARNING, logger="unicb"):
        bind(Fresh(), CFGCutoff(0.4))
        bind(Fresh(), CFGCutoff(0.4))
    assert len(caplog.records) == 1
    for part in ("Fresh", "its code tells", "unet", "conditional then unconditional"):
        assert part in caplog.text


def test_wrapped_call_keeps_its_bases_facts(caplog: pytest.LogCaptureFixture) -> None:
    """A subclass that only wraps ``__call__`` is as known as its base, and nothing is said."""

    class Wrapped(ToyPipeline):
        def __call__(
            self,
            *args: Any,
            callback_on_step_end: Any = None,
            callback_on_step_end_tensor_inputs: Any = ("latents",),
        ) -> Any:
            return super().__call__(
                *args,
                callback_on_step_end=callback_on_step_end,
                callback_on_step_end_tensor_inputs=callback_on_step_end_tensor_inputs,
            )

    pipe = Wrapped()
    with Spying().spied(pipe) as rows, caplog.at_level(logging.WARNING, logger="unicb"):
        pipe("x", **bind(pipe, CFGCutoff(0.4)))
    assert rows == [2] * 5 + [1] * 5
    assert not caplog.records


def test_own_loop_of_a_known_base(caplog: pytest.LogCaptureFixture) -> None:
    """Where the code of a subclass contradicts what its base is known for, the code is right;
    where it does not tell, the base is trusted, and that is said."""

    class Base(ToyPipeline):
        pass

    class Own(Base):
        __call__ = loops.ConditionalFirst.__call__  # type: ignore[assignment]
        start = loops.LoopPipeline.start

    class Vague(Base):
        __call__ = loops.Unclear.__call__  # type: ignore[assignment]
        start = loops.LoopPipeline.start

    pipe = Own()
    _, out = rows_of(pipe)
    assert np.abs(out - conditional_after(pipe, 1)).max() < 1e-6
    with caplog.at_level(logging.WARNING, logger="unicb"):
        rows, out = rows_of(Vague())
    assert rows == [4, 4, 2, 2, 2]
    assert "taken to be as its base's" in caplog.text
    assert np.abs(out - conditional_after(Vague(), 1)).max() < 1e-6


def test_failed_run_does_not_touch_the_scale_of_the_next() -> None:
    """A failed run whose traceback somebody keeps is noticed only in the middle of the next."""
    pipe = loops.Switched()

    step = pipe.scheduler.step
    pipe.scheduler.step = lambda *args: step(*args) if args[1] > 700 else 1 / 0  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError) as kept:
        pipe(PROMPTS, **bind(pipe, CFGCutoff(cutoff_step_index=0)))
    assert pipe._guidance_scale == 1.0  # nobody has set it yet
    pipe.scheduler.step = step  # type: ignore[method-assign]
    scales: list[float] = []

    def look(pipe: Any, i: int, t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        scales.append(pipe._guidance_scale)
        if i == 1:
            kept.value.__traceback__ = None
            kept.value.__context__ = None
            gc.collect()
        return tensors

    pipe(PROMPTS, guidance_scale=3.0, callback_on_step_end=look)
    assert scales == [3.0] * 5


@pytest.mark.parametrize("kind", [loops.ConditionalFirst, loops.LocalFlag])
def test_call_of_another_run_ends_one_that_has_failed(kind: type) -> None:
    """The hooks that a failed run has left notice that its loop is gone, and go."""
    pipe = kind()
    step = pipe.scheduler.step
    pipe.scheduler.step = lambda *args: step(*args) if args[1] > 500 else 1 / 0
    with pytest.raises(ZeroDivisionError) as kept:
        pipe(PROMPTS, **bind(pipe, CFGCutoff(cutoff_step_index=0)))
    assert "forward" in vars(pipe.unet)
    pipe.scheduler.step = step
    plain = pipe(PROMPTS)
    assert "forward" not in vars(pipe.unet)
    assert (plain == kind()(PROMPTS)).all()
    assert kept.value is not None


def test_scale_set_after_a_cut_does_not_undo_it() -> None:
    """Of a class whose switch is the scale, whether that is known or inferred from its code."""
    pipe = loops.Switched()

    class Raise(Callback):
        def on_step_end(self, step: Step) -> None:
            step.guidance_scale = 9.0

    with Spying().spied(pipe) as rows:
        pipe(PROMPTS, **bind(pipe, CFGCutoff(cutoff_step_index=1), Raise()))
    assert rows == [2] * (2 * 2 + 3)
    assert pipe._guidance_scale == 5.0
