"""GuidanceSchedule: the scale of each step, where it is read at each step and where it is not."""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from guided import (
    BY_LOCAL,
    LOOPS,
    BatchOfLocal,
    CallsOfLocal,
    FromConditional,
    Inferred,
    Known,
    Rescaled,
    SwitchOfLocal,
    expected_rows,
    facts,
    reference,
    watched,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from loops import LocalFlag, Switched
from stop_helpers import hooked

from unicb import (
    Callback,
    CFGCutoff,
    GenerationCancelled,
    GuidanceInterval,
    GuidanceSchedule,
    PipelineFacts,
    Step,
    UnsupportedPipelineError,
    bind,
)
from unicb.callbacks import cosine, linear
from unicb_numpy.pipelines import ToyPipeline

#: Of float64 latents, in which a moved prediction is rounded once more.
ROUNDING = {"rtol": 0, "atol": 1e-12}


def left_on(pipe: Any) -> list[str]:
    gc.collect()
    return hooked(pipe)


def stepped(kind: Any, scales: list[float]) -> Any:
    """A run whose steps have these scales, without unicb: the oracle."""
    left = iter(scales)

    class OfProperty(Known):
        @property
        def guidance_scale(self) -> float:
            return next(left)

    class OfLocal(BatchOfLocal):
        def combine(self, u: Any, c: Any, _: float) -> Any:  # type: ignore[override]
            return BatchOfLocal.combine(u, c, next(left))

    made = (OfProperty if kind is Known else OfLocal)()(["x"], steps=len(scales))
    assert next(left, None) is None
    return made


# ---------------------------------------------------------------------------- constant schedules


@pytest.mark.parametrize("kind", LOOPS)
@pytest.mark.parametrize("scale", [1.5, 3.0, 5.0, 12.0])
def test_a_constant_is_a_call_with_that_scale(kind: Any, scale: float) -> None:
    pipe = kind()
    plain = pipe(["x", "y"], steps=6, guidance_scale=scale)
    with watched(pipe) as rows:
        found = pipe(["x", "y"], steps=6, **bind(pipe, GuidanceSchedule(scale)))
    assert rows == expected_rows(pipe, [True] * 6, batch=2)
    if kind in BY_LOCAL and scale != 5.0:
        np.testing.assert_allclose(found, plain, **ROUNDING)
    else:
        assert (found == plain).all()
    assert left_on(pipe) == []
    assert pipe.guidance_scale == 5.0


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    kind=st.sampled_from([Known, BatchOfLocal, Rescaled, CallsOfLocal, SwitchOfLocal]),
    scale=st.floats(0.0, 20.0),
    called=st.floats(1.01, 20.0),
)
def test_any_constant(kind: Any, scale: float, called: float) -> None:
    """Also where the pipeline has no guidance at that scale: then it has none, at half the work."""
    pipe = kind()
    plain = pipe(["x"], steps=3, guidance_scale=scale)
    with watched(pipe) as rows:
        found = pipe(["x"], 3, called, **bind(pipe, GuidanceSchedule(scale)))
    assert rows == expected_rows(pipe, [scale > 1] * 3)
    # (s - 1) / (g - 1) is rounded, and g - 1 multiplies it again.
    np.testing.assert_allclose(found, plain, rtol=0, atol=1e-10)


@pytest.mark.parametrize("scale", [0.0, 0.5, 2.0])
def test_from_the_conditional_part(scale: float) -> None:
    """c + g * (c - u) is c at 0, and stronger than guidance of 1 at 1."""
    more = {"guided_above": 0.0, "combination": "from_conditional", "guidance_scale": "local"}
    pipe = type("Pipe", (FromConditional,), {"unicb_facts": facts(**more)})()
    with watched(pipe) as rows:
        found = pipe(["x"], steps=4, **bind(pipe, GuidanceSchedule(scale)))
    assert rows == expected_rows(pipe, [scale > 0] * 4)
    if scale:
        pipe.combine = lambda u, c, _: FromConditional.combine(u, c, scale)
    expected = pipe(["x"], steps=4) if scale else reference(pipe, ["x"], [False] * 4)
    np.testing.assert_allclose(found, expected, **ROUNDING)


# ---------------------------------------------------------------------------- which step has what


@pytest.mark.parametrize(
    "schedule",
    [
        linear(9.0, 2.0),
        cosine(3.0, 8.0),
        lambda progress: 2 + 40 * progress * (1 - progress),
        [(0.0, 2.0), (0.3, 7.0), (0.75, 4.0)],
    ],
    ids=["linear", "cosine", "function", "table"],
)
@pytest.mark.parametrize("kind", [Known, BatchOfLocal, CallsOfLocal, SwitchOfLocal])
def test_step_i_of_n_has_the_value_at_i_over_n(kind: Any, schedule: Any) -> None:
    values = [_at(schedule, i / 10) for i in range(10)]
    pipe = kind()
    found = pipe(["x"], steps=10, **bind(pipe, GuidanceSchedule(schedule)))
    np.testing.assert_allclose(found, stepped(kind, values), **ROUNDING)


def _at(schedule: Any, progress: float) -> float:
    if callable(schedule):
        return float(schedule(progress))
    return float([value for start, value in schedule if start <= progress + 1e-9][-1])


@pytest.mark.parametrize("kind", LOOPS)
def test_off_by_the_table_is_the_interval(kind: Any) -> None:
    """Where a table says that guidance is off, it is cut: half of the work, the same bits."""
    pipe = kind()
    off = 1.0
    inside = [3 <= index <= 7 for index in range(10)]
    table = [(0.0, off), (0.3, 5.0), (0.75, off)]
    if kind is FromConditional:
        more = {"guided_above": 1.0, "combination": "from_conditional", "guidance_scale": "local"}
        pipe = type("Pipe", (kind,), {"unicb_facts": facts(**more)})()
    with watched(pipe) as rows:
        interval = pipe(["x"], steps=10, **bind(pipe, GuidanceInterval(0.3, 0.7)))
        of_interval = list(rows)
        rows.clear()
        found = pipe(["x"], steps=10, **bind(pipe, GuidanceSchedule(table)))
    assert rows == of_interval == expected_rows(pipe, inside)
    assert (found == interval).all()
    assert left_on(pipe) == []


def test_both_halves_of_a_step_have_the_same() -> None:
    seen: list[float] = []

    class See(Callback):
        def on_step_end(self, step: Step) -> None:
            seen.append(step.guidance_scale)

    pipe = Known(order=2)
    schedule = GuidanceSchedule(lambda progress: 2 + 9 * progress)
    pipe("x", 5, **bind(pipe, See(), schedule))
    # 9 half steps: 0 1 | 2 3 | 4 5 | 6 7 | 8. Before the schedule is called, at each one's end.
    assert seen == pytest.approx([2, 2, 4, 4, 6, 6, 8, 8, 10])


def test_the_function_is_asked_once_for_each_step() -> None:
    asked: list[float] = []
    pipe = Known()
    callbacks = bind(pipe, GuidanceSchedule(lambda p: asked.append(p) or 3.0))
    asked.clear()
    pipe("x", 4, **callbacks)
    assert asked == [0.0, 0.25, 0.5, 0.75]


def test_the_scale_of_a_copy_is_never_touched() -> None:
    pipe, seen = CallsOfLocal(), []

    class See(Callback):
        def on_step_end(self, step: Step) -> None:
            seen.append(step.guidance_scale)

    pipe(["x"], steps=4, **bind(pipe, GuidanceSchedule(linear(2.0, 9.0)), See()))
    assert seen == [5.0] * 4


def test_a_scale_that_the_loop_changes_itself() -> None:
    """As with two experts, each with a scale of its own: what counts is the step's."""
    pipe = BatchOfLocal()
    own = iter([5.0, 5.0, 3.0, 3.0])
    plain = pipe(["x"], steps=4, guidance_scale=2.0)

    class Two(BatchOfLocal):
        unicb_facts = facts(guidance_scale="local", scale_names=("self.current",))

        def combine(self, u: Any, c: Any, _: float) -> Any:  # type: ignore[override]
            return BatchOfLocal.combine(u, c, self.current)

        @property
        def current(self) -> float:
            return self.now

        def start(self, *args: Any) -> Any:
            self.now = next(own)
            return super().start(*args)

    class Next(Callback):
        def on_step_end(self, step: Step) -> None:
            step.pipeline.now = next(own, 0.0)

    two = Two()
    found = two(["x"], steps=4, **bind(two, GuidanceSchedule(2.0), Next()))
    np.testing.assert_allclose(found, plain, **ROUNDING)


# ------------------------------------------------------------------------------ put back, whatever


class Do(Callback):
    def __init__(self, at: int, do: Callable[[], Any]) -> None:
        self.at, self.do = at, do

    def on_step_end(self, step: Step) -> None:
        if step.index == self.at:
            self.do()


def _fail() -> None:
    raise RuntimeError("no")


@pytest.mark.parametrize("kind", LOOPS)
@pytest.mark.parametrize("at", [0, 2, 4])
@pytest.mark.parametrize("schedule", [3.0, [(0.0, 1.0), (0.2, 3.0), (0.7, 1.0)]])
def test_after_an_exception(kind: Any, at: int, schedule: Any) -> None:
    pipe = kind()
    plain = pipe(["x"], steps=6)
    callbacks = bind(pipe, GuidanceSchedule(schedule), Do(at, _fail))
    with pytest.raises(RuntimeError) as kept:
        pipe(["x"], steps=6, **callbacks)
    assert kept.value
    assert hooked(pipe) == []
    assert pipe.guidance_scale == 5.0
    assert (pipe(["x"], steps=6) == plain).all()


@pytest.mark.parametrize("kind", [Known, *BY_LOCAL])
@pytest.mark.parametrize("how", ["interrupt", "cancel"])
def test_after_an_interrupt_and_a_cancel(kind: Any, how: str) -> None:
    pipe = kind()
    stop = Do(2, lambda: getattr(callbacks, how)())
    callbacks = bind(pipe, GuidanceSchedule(linear(3.0, 8.0)), stop)
    with watched(pipe) as rows, suppress(GenerationCancelled):
        pipe(["x"], steps=6, **callbacks)
    assert callbacks.state == f"{how}{'led' if how == 'cancel' else 'ed'}"
    assert rows == expected_rows(pipe, [True] * 3)
    assert left_on(pipe) == []
    assert pipe.guidance_scale == 5.0


@pytest.mark.parametrize("kind", LOOPS)
def test_a_scheduler_that_fails_in_the_first_step(kind: Any) -> None:
    pipe = kind()
    step = pipe.scheduler.step
    pipe.scheduler.step = lambda *_: _fail()
    callbacks = bind(pipe, GuidanceSchedule(3.0))
    with pytest.raises(RuntimeError):
        pipe(["x"], **callbacks)
    pipe.scheduler.step = step
    gc.collect()
    assert left_on(pipe) == ["step of the scheduler"]  # the test's own
    assert pipe.guidance_scale == 5.0


def test_two_runs_on_one_binding() -> None:
    for kind in LOOPS:
        pipe = kind()
        callbacks = bind(pipe, GuidanceSchedule(linear(3.0, 8.0)))
        plain = pipe(["x"])
        first = pipe(["x"], **callbacks)
        assert (pipe(["x"]) == plain).all()
        assert (pipe(["x"], **callbacks) == first).all()
        assert not np.allclose(first, plain)


# ---------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("kind", [Known, BatchOfLocal, SwitchOfLocal])
def test_guidance_off_in_the_call(kind: Any) -> None:
    """Refused before anything is computed, with the argument to pass."""
    pipe = kind()
    callbacks = bind(pipe, GuidanceSchedule(3.0))
    with watched(pipe) as rows, pytest.raises(UnsupportedPipelineError) as refused:
        pipe(["x"], guidance_scale=1.0, **callbacks)
    assert rows == []
    assert "called with guidance off" in str(refused.value)
    assert str(refused.value).endswith("call it with guidance_scale above 1")
    assert callbacks.state == "failed"
    assert hooked(pipe) == []


class WithoutNegative(CallsOfLocal):
    """Guides only with a negative prompt: that it does not is seen in its calls alone."""

    unicb_facts = facts(cfg="calls", guidance_scale="local", scale_names=("true_cfg_scale",))

    def __call__(  # type: ignore[override]
        self,
        prompts: list[str],
        true_cfg_scale: float = 5.0,
        negative_prompt: str | None = None,
        callback_on_step_end: Any = None,
        callback_on_step_end_tensor_inputs: Any = ("latents",),
    ) -> Any:
        latents, positive, _, timesteps = self.start(prompts, 5, true_cfg_scale)
        for i, t in enumerate(timesteps):
            noise_pred = self.unet(latents, t, encoder_hidden_states=positive)
            latents = self.scheduler.step(noise_pred, t, latents)
            if callback_on_step_end is not None:
                latents = callback_on_step_end(self, i, t, {"latents": latents})["latents"]
        return latents.data


def test_without_a_negative_prompt() -> None:
    pipe = WithoutNegative()
    reason = r"call it with true_cfg_scale above 1 and a negative_prompt$"
    with watched(pipe) as rows, pytest.raises(UnsupportedPipelineError, match=reason):
        pipe(["x"], **bind(pipe, GuidanceSchedule(3.0)))
    assert rows == [1]
    assert left_on(pipe) == []


def test_what_a_call_leaves_to_be_seen() -> None:
    """Where the scale says that guidance is on, rows that say it is off are believed."""
    about = facts(guidance_scale="local", scale_names=("self.said",))
    pipe = type("Pipe", (BatchOfLocal,), {"unicb_facts": about, "said": 5.0})()
    with watched(pipe) as rows, pytest.raises(UnsupportedPipelineError, match="guidance off"):
        pipe(["x"], 5, 1.0, **bind(pipe, GuidanceSchedule(3.0)))
    assert rows == []


@pytest.mark.parametrize("kind", [LocalFlag, Switched])
def test_a_copy_in_a_loop_that_is_not_known(kind: Any) -> None:
    """That it has two calls is inferred from its code; how it combines them is not."""
    with pytest.raises(UnsupportedPipelineError, match="not known to be u"):
        bind(kind(), GuidanceSchedule(3.0))


def test_a_property_in_a_loop_that_is_not_known() -> None:
    pipe = Inferred()
    plain = pipe(["x"], guidance_scale=3.0)
    assert (pipe(["x"], **bind(pipe, GuidanceSchedule(3.0))) == plain).all()


@pytest.mark.parametrize("names", [("current_scale",), ("current_scale", "guidance_scale")])
def test_a_scale_that_another_release_has(names: tuple[str, ...]) -> None:
    """Facts name a local that this loop lacks: it is known before the run."""
    about = facts(guidance_scale="local", scale_names=names)
    pipe = type("Older", (BatchOfLocal,), {"unicb_facts": about})()
    if len(names) == 1:
        with pytest.raises(UnsupportedPipelineError, match="loop has no scale called current_sc"):
            bind(pipe, GuidanceSchedule(3.0))
        assert hooked(pipe) == []
    else:
        plain = pipe(["x"], guidance_scale=3.0)
        found = pipe(["x"], **bind(pipe, GuidanceSchedule(3.0)))
        np.testing.assert_allclose(found, plain, **ROUNDING)


def test_another_combination() -> None:
    pipe = type(
        "Odd", (BatchOfLocal,), {"unicb_facts": facts(guidance_scale="local", combination="other")}
    )()
    with pytest.raises(
        UnsupportedPipelineError, match="on Odd: its loop keeps a copy of its scale"
    ):
        bind(pipe, GuidanceSchedule(3.0))


@pytest.mark.parametrize("flag", [True, False])
def test_another_combination_by_a_flag(flag: bool) -> None:
    class Config:
        zero_star = flag

    about = facts(guidance_scale="local", other_if="zero_star")
    pipe = type("Odd", (BatchOfLocal,), {"unicb_facts": about, "config": Config})()
    if not flag:
        bind(pipe, GuidanceSchedule(3.0))
        return
    with pytest.raises(UnsupportedPipelineError, match="with zero_star in a way"):
        bind(pipe, GuidanceSchedule(3.0))


def test_a_loop_that_sets_its_scale_itself() -> None:
    class Dynamic(BatchOfLocal):
        unicb_facts = facts(scale_set_if="do_cfg")

    pipe = Dynamic()
    with pytest.raises(UnsupportedPipelineError, match="do_cfg, and sets the scale itself"):
        pipe(["x"], **bind(pipe, GuidanceSchedule(3.0)))
    assert hooked(pipe) == []


def test_without_cfg() -> None:
    none = PipelineFacts("here", cfg="none", why_none="has no classifier-free guidance")
    pipe = type("Plain", (ToyPipeline,), {"unicb_facts": none})()
    with pytest.raises(UnsupportedPipelineError, match="cannot set guidance on Plain: it has no"):
        bind(pipe, GuidanceSchedule(3.0))


def test_a_schedule_that_cuts_needs_what_can_be_cut() -> None:
    """Above the scale at which guidance is off, the denoiser is not touched."""
    pipe = Known()
    pipe._callback_tensor_inputs = ("prompt_embeds",)  # type: ignore[misc]
    bind(pipe, GuidanceSchedule(linear(3.0, 1.5)))
    with pytest.raises(UnsupportedPipelineError, match="does not offer"):
        bind(pipe, GuidanceSchedule(linear(3.0, 1.0)))


@pytest.mark.parametrize(
    ("schedule", "error", "message"),
    [
        ([], ValueError, "GuidanceSchedule is an empty table"),
        ([(0.2, 5.0)], ValueError, "must start at progress 0.0, not 0.2"),
        ([(0.0, 5.0), (1.2, 3.0)], ValueError, r"must lie in 0\.\.1, not 1.2"),
        ([(0.0, 5.0), (0.5, 3.0), (0.4, 2.0)], ValueError, "0.4 follows 0.5"),
        ([(0.0, 5.0), (0.5, -3.0)], ValueError, "at progress 0.5 must be 0 or more, not -3"),
        (-1.0, ValueError, "GuidanceSchedule must be 0 or more, not -1.0"),
        (float("inf"), ValueError, "GuidanceSchedule must be finite, not inf"),
        ("5", TypeError, "GuidanceSchedule must be a number, not '5'"),
        (None, TypeError, "must be a number, not None"),
        ([5.0, 3.0], TypeError, "must be a number, not"),
    ],
)
def test_bad_schedules(schedule: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        GuidanceSchedule(schedule)


def test_a_function_that_answers_badly() -> None:
    pipe = Known()
    with pytest.raises(TypeError, match="at progress 0 must be a number, not None"):
        bind(pipe, GuidanceSchedule(lambda progress: None))  # type: ignore[arg-type, return-value]
    schedule = GuidanceSchedule(lambda progress: float("nan") if progress == 0.5 else 2.0)
    with pytest.raises(ValueError, match=r"at progress 0\.5 must be finite"):
        pipe("x", **bind(pipe, schedule))
    assert hooked(pipe) == []
    assert pipe.guidance_scale == 5.0


@pytest.mark.parametrize(
    "other", [CFGCutoff(0.5), GuidanceInterval(0.1, 0.2), GuidanceSchedule(2.0)]
)
def test_two_that_decide_on_guidance(other: Any) -> None:
    names = f"GuidanceSchedule and {type(other).__name__}"
    with pytest.raises(ValueError, match=f"both decide on guidance: {names}"):
        bind(Known(), GuidanceSchedule(3.0), other)
