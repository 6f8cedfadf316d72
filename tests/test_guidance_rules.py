"""Guidance by a rule, on toys of every way to guide."""

from __future__ import annotations

import gc
import weakref
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from guided import (
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
    watched,
)
from loops import TwoPasses
from stop_helpers import hooked

from unicb import (
    Callback,
    CFGCutoff,
    GenerationCancelled,
    GuidanceRule,
    GuidanceSchedule,
    Interrupt,
    NaNGuard,
    PipelineFacts,
    RuleStep,
    Step,
    UnicbError,
    UnsupportedPipelineError,
    bind,
    sibling,
)
from unicb.callbacks import linear
from unicb_numpy.ops import StrictTensor
from unicb_numpy.pipelines import ToyPipeline

#: Loops whose combination is known.
KINDS = [kind for kind in LOOPS if kind is not Inferred]
ROUNDING = {"rtol": 1e-9, "atol": 1e-11}
PROMPTS = ["x", "y"]


class Plain(GuidanceRule):
    def combine(self, unconditional: Any, conditional: Any, scale: Any, step: Any) -> Any:
        return unconditional + (conditional - unconditional) * scale


class Momentum(GuidanceRule):
    """Adds half of what the last step had to the difference of the two predictions."""

    def combine(self, unconditional: Any, conditional: Any, scale: Any, step: RuleStep) -> Any:
        difference = conditional - unconditional
        kept = step.state(self, list)
        difference = difference + kept.pop() * 0.5 if kept else difference
        kept.append(difference)
        return unconditional + difference * scale


class MomentumLoop(BatchOfLocal):
    """A loop that does the same by itself."""

    def start(self, *args: Any) -> Any:
        self.kept: Any = 0.0
        return super().start(*args)

    def combine(self, u: StrictTensor, c: StrictTensor, scale: float) -> StrictTensor:  # type: ignore[override]
        self.kept = c.data - u.data + 0.5 * self.kept
        return StrictTensor(u.data + scale * self.kept)


class OfBoth(Momentum):
    """Keeps something of the run beside what it keeps of each step."""

    def combine(self, unconditional: Any, conditional: Any, scale: Any, step: RuleStep) -> Any:
        step.run.state(self, dict)[step.index] = step.index
        return super().combine(unconditional, conditional, scale, step)

    def on_run_end(self, run: Any) -> None:
        assert run.state(self, dict) == {index: index for index in range(10)}


class Seen(Plain):
    """Notes what it is asked for."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self.steps: list[tuple[int, float, float]] = []

    def combine(self, unconditional: Any, conditional: Any, scale: Any, step: RuleStep) -> Any:
        self.steps.append((step.index, round(step.progress, 6), round(float(scale), 6)))
        return super().combine(unconditional, conditional, scale, step)


def left_on(pipe: Any) -> list[str]:
    gc.collect()
    return hooked(pipe)


# -- it is exact


@pytest.mark.parametrize("prompts", [["x"], PROMPTS], ids=["one", "two"])
@pytest.mark.parametrize("kind", KINDS)
def test_plain_guidance_of_another_scale(kind: Any, prompts: list[str]) -> None:
    pipe = kind()
    more = kind is FromConditional  # which makes c + g * (c - u)
    for scale in (2.0, 8.0):
        wanted = pipe(prompts, guidance_scale=scale)
        found = pipe(prompts, **bind(pipe, Plain(scale + more)))
        np.testing.assert_allclose(found, wanted, **ROUNDING)
    assert not np.allclose(wanted, pipe(prompts))


def test_what_is_kept_of_the_run_and_of_its_steps() -> None:
    pipe = BatchOfLocal()
    wanted = pipe(PROMPTS, **bind(pipe, Momentum()))
    callbacks = bind(pipe, OfBoth())
    for _ in range(2):
        assert (pipe(PROMPTS, **callbacks) == wanted).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_scale_of_the_call(kind: Any) -> None:
    pipe = kind()
    rule = Seen()
    found = pipe(PROMPTS, guidance_scale=4.0, **bind(pipe, rule))
    np.testing.assert_allclose(found, pipe(PROMPTS, guidance_scale=4.0), **ROUNDING)
    assert {scale for _, _, scale in rule.steps} == {5.0 if kind is FromConditional else 4.0}


@pytest.mark.parametrize("kind", [Known, BatchOfLocal, CallsOfLocal, SwitchOfLocal])
def test_a_rule_that_is_not_plain(kind: Any) -> None:
    """Momentum, against a loop that has it; of rows that are each for itself."""
    wanted = MomentumLoop()(PROMPTS, steps=6, guidance_scale=3.0)
    pipe = kind()
    pipe.dtype = "float32"  # of the embeddings, as in the other loop
    callbacks = bind(pipe, Momentum(3.0))
    close = {"rtol": 1e-5, "atol": 1e-5}
    for _ in range(2):  # which starts anew with each run
        np.testing.assert_allclose(pipe(PROMPTS, steps=6, **callbacks), wanted, **close)
    alone = MomentumLoop()(["x"], steps=6, guidance_scale=3.0)
    np.testing.assert_allclose(pipe(["x"], steps=6, **callbacks), alone, **close)
    assert not np.allclose(wanted, pipe(PROMPTS, steps=6, guidance_scale=3.0), rtol=0.01)


class KeepsRun(Callback):
    run: Any = None

    def on_step_end(self, step: Step) -> None:
        self.run = step.run


def test_nothing_is_kept_of_a_run_that_is_over() -> None:
    """Whoever keeps the run."""

    class Marked:
        """What a rule keeps."""

    made: list[weakref.ref[Marked]] = []

    class Keeps(Plain):
        def combine(self, u: Any, c: Any, scale: Any, step: RuleStep) -> Any:
            made.append(weakref.ref(step.state(self, Marked)))
            assert made[-1]() is made[0]()
            return super().combine(u, c, scale, step)

    pipe = BatchOfLocal()
    keeper = KeepsRun()
    pipe(["x"], **bind(pipe, Keeps(3.0), keeper))
    gc.collect()
    assert keeper.run.outcome == "finished"
    assert len(made) == 10
    assert [ref() for ref in made] == [None] * 10


def test_state_starts_anew_with_each_pass() -> None:
    pipe = TwoPasses()
    lengths: list[int] = []

    class Counted(Plain):
        def combine(self, u: Any, c: Any, scale: Any, step: RuleStep) -> Any:
            kept = step.state(self, list)
            kept.append(step.index)
            lengths.append(len(kept))
            return super().combine(u, c, scale, step)

    pipe(["x"], steps=3, **bind(pipe, Counted(2.0)))
    assert lengths == [1, 2, 3, 1, 2, 3]


class Windows(BatchOfLocal):
    """Two passes of which the run sees one: its number of steps is that of both."""

    def __call__(  # type: ignore[override]
        self,
        prompts: list[str],
        steps: int = 3,
        guidance_scale: float = 5.0,
        callback_on_step_end: Any = None,
        callback_on_step_end_tensor_inputs: Any = ("latents",),
    ) -> Any:
        latents, positive, negative, timesteps = self.start(prompts, steps, guidance_scale)
        self._num_timesteps = 2 * steps
        embeds = StrictTensor(np.concatenate([negative.data, positive.data]))
        for _ in range(2):
            for i, t in enumerate(timesteps):
                twice = StrictTensor(np.concatenate([latents.data] * 2))
                u, c = np.split(self.unet(twice, t, encoder_hidden_states=embeds).data, 2)
                noise = StrictTensor(u + guidance_scale * (c - u))
                latents = self.scheduler.step(noise, t, latents)
                if callback_on_step_end is not None:
                    latents = callback_on_step_end(self, i, t, {"latents": latents})["latents"]
        return latents.data


def test_state_starts_anew_with_each_part_of_a_long_video() -> None:
    pipe, lengths = Windows(), []

    class Counted(Plain):
        def combine(self, u: Any, c: Any, scale: Any, step: RuleStep) -> Any:
            kept = step.state(self, list)
            kept.append(step.timestep)
            lengths.append((step.index, len(kept)))
            return super().combine(u, c, scale, step)

    pipe(["x"], **bind(pipe, Counted(2.0)))
    assert lengths == [(0, 1), (1, 2), (2, 3), (3, 1), (4, 2), (5, 3)]


# -- cut, schedule and rule together


@pytest.mark.parametrize("kind", KINDS)
def test_in_an_interval(kind: Any) -> None:
    """Outside of it only the conditional half is computed, and nobody asks the rule."""
    pipe, rule = kind(), Seen([(0.0, 2.0), (0.5, 8.0)], interval=(0.2, 0.6))
    schedule = GuidanceSchedule([(0.0, 1.0), (0.2, 2.0), (0.5, 8.0), (0.7, 1.0)])
    if kind is FromConditional:
        from_0 = replace(kind.unicb_facts, guided_above=0.0)
        pipe = type("From0", (kind,), {"unicb_facts": from_0})()
        schedule = GuidanceSchedule([(0.0, 0.0), (0.2, 1.0), (0.5, 7.0), (0.7, 0.0)])
    with watched(pipe) as rows:
        found = pipe(PROMPTS, steps=10, **bind(pipe, rule))
        guided = [2 <= index <= 6 for index in range(10)]
        assert rows == expected_rows(pipe, guided, 2)
    assert [index for index, _, _ in rule.steps] == [2, 3, 4, 5, 6]
    assert [scale for _, _, scale in rule.steps] == [2.0] * 3 + [8.0] * 2
    wanted = pipe(PROMPTS, steps=10, **bind(pipe, schedule))
    np.testing.assert_allclose(found, wanted, **ROUNDING)
    assert left_on(pipe) == []


@pytest.mark.parametrize("kind", [BatchOfLocal, CallsOfLocal])
def test_momentum_does_not_act_where_guidance_is_cut(kind: Any) -> None:
    """What it keeps of an interval is of the steps of that interval alone."""
    pipe, kept = kind(), []

    class Kept(Momentum):
        def combine(self, u: Any, c: Any, scale: Any, step: RuleStep) -> Any:
            made = super().combine(u, c, scale, step)
            kept.append(step.index)
            return made

    pipe(["x"], steps=10, **bind(pipe, Kept(3.0, interval=(0.0, 0.4))))
    assert kept == [0, 1, 2, 3, 4]


def test_both_halves_of_a_step_have_one_scale() -> None:
    pipe, rule = Known(order=2), Seen(linear(8.0, 2.0))
    found = pipe(["x"], steps=3, **bind(pipe, rule))
    wanted = pipe(["x"], steps=3, **bind(pipe, GuidanceSchedule(linear(8.0, 2.0))))
    np.testing.assert_allclose(found, wanted, **ROUNDING)
    scales = [scale for _, _, scale in rule.steps]
    assert scales[0] == scales[1] > scales[2] == scales[3] > scales[4]


def test_a_scale_of_1_and_below_is_no_cut() -> None:
    pipe = BatchOfLocal()
    with watched(pipe) as rows:
        found = pipe(["x"], **bind(pipe, Plain(0.5)))
    assert rows == [2] * 10
    wanted = pipe(["x"], **bind(pipe, Plain(linear(0.5, 0.5))))
    assert (found == wanted).all()


# -- put back, whatever; whose it is


class Do(Callback):
    def __init__(self, at: int, do: Any) -> None:
        self.at, self.do = at, do

    def on_step_end(self, step: Step) -> None:
        if step.index == self.at:
            self.do()


def _fail() -> None:
    raise RuntimeError("no")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("interval", [(0.0, 1.0), (0.2, 0.6)])
def test_after_an_exception(kind: Any, interval: tuple[float, float]) -> None:
    pipe = kind()
    plain = pipe(["x"], steps=6)
    for at in (0, 2, 4):
        callbacks = bind(pipe, Momentum(3.0, interval=interval), Do(at, _fail))
        with pytest.raises(RuntimeError) as kept:
            pipe(["x"], steps=6, **callbacks)
        assert kept.value
        assert hooked(pipe) == []
        assert pipe.guidance_scale == 5.0
        assert (pipe(["x"], steps=6) == plain).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["interrupt", "cancel"])
def test_after_an_interrupt_and_a_cancel(kind: Any, how: str) -> None:
    pipe = kind()
    plain = pipe(["x"], steps=6)
    stop = Do(2, lambda: getattr(callbacks, how)())
    callbacks = bind(pipe, Momentum(3.0), stop)
    with suppress(GenerationCancelled):
        pipe(["x"], steps=6, **callbacks)
    assert left_on(pipe) == []
    assert pipe.guidance_scale == 5.0
    assert (pipe(["x"], steps=6) == plain).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_inside_of_a_run(kind: Any) -> None:
    """Another pipeline on the same denoiser, with the same rule: each has its own momentum."""
    pipe, rule = kind(), Momentum(3.0)
    other = kind()
    other.unet = pipe.unet
    wanted, plain = pipe(["x"], **bind(pipe, rule)), other(["y"])
    inner = other(["y"], **bind(other, rule))

    class Inside(Callback):
        def on_step_end(self, step: Step) -> None:
            if step.index in (1, 5):
                assert (other(["y"], **bind(other, rule)) == inner).all()
                assert (other(["y"]) == plain).all()

    assert (pipe(["x"], **bind(pipe, rule, Inside())) == wanted).all()
    assert left_on(pipe) == []


def test_overlapping_runs_with_one_rule() -> None:
    """Two loops that take turns, each a step: what a rule keeps is of its own run."""
    from threading import Barrier, Thread

    pipe, rule = Known(), Momentum(3.0)
    other, turns = sibling(pipe), Barrier(2)
    wanted = {text: pipe([text], **bind(pipe, rule)) for text in PROMPTS}
    found: dict[str, Any] = {}

    class Turn(Callback):
        def on_step_end(self, step: Step) -> None:
            turns.wait(30)

    def run(own: Any, text: str) -> None:
        found[text] = bind(own, rule, Turn())([text])

    threads = [Thread(target=run, args=pair) for pair in ((pipe, "x"), (other, "y"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for text in PROMPTS:
        assert (found[text] == wanted[text]).all()


def test_beside_others() -> None:
    pipe = BatchOfLocal()
    wanted = pipe(["x"], **bind(pipe, Momentum(3.0)))
    assert (pipe(["x"], **bind(pipe, NaNGuard(), Momentum(3.0))) == wanted).all()
    found = pipe(["x"], **bind(pipe, Momentum(3.0), Interrupt(3)))
    assert found.shape == wanted.shape
    assert left_on(pipe) == []


# -- loops that are not proven


def unproven(kind: Any, **more: Any) -> Any:
    own = {"guidance_scale": "local", **more, "verify": True}
    return type(kind.__name__, (kind,), {"unicb_facts": facts(**own)})()


UNPROVEN: dict[Any, dict[str, Any]] = {
    BatchOfLocal: {},
    FromConditional: {"combination": "from_conditional", "guided_above": 0.0},
    CallsOfLocal: {"cfg": "calls"},
}


@pytest.mark.parametrize("interval", [(0.0, 1.0), (0.0, 0.5), (0.2, 0.6)])
@pytest.mark.parametrize("kind", UNPROVEN)
def test_as_by_the_facts(kind: Any, interval: tuple[float, float]) -> None:
    """The first step is computed whole, and made anew with the rule; which is asked for it once."""
    known = type("Own", (kind,), {"unicb_facts": facts(guidance_scale="local", **UNPROVEN[kind])})()
    pipe, rule = unproven(kind, **UNPROVEN[kind]), Momentum(3.0, interval=interval)
    plain = pipe(PROMPTS)
    wanted = known(PROMPTS, **bind(known, rule))
    found = pipe(PROMPTS, **bind(pipe, rule))
    assert not np.allclose(plain, wanted)
    np.testing.assert_allclose(found, wanted, **ROUNDING)
    assert left_on(pipe) == []
    assert (pipe(PROMPTS) == plain).all()


class Views(BatchOfLocal):
    """Computes each step twice, for two views of a picture, which it then blends."""

    def __call__(  # type: ignore[override]
        self,
        prompts: list[str],
        steps: int = 4,
        guidance_scale: float = 5.0,
        callback_on_step_end: Any = None,
        callback_on_step_end_tensor_inputs: Any = ("latents",),
    ) -> Any:
        latents, positive, negative, timesteps = self.start(prompts, steps, guidance_scale)
        embeds = StrictTensor(np.concatenate([negative.data, positive.data]))
        for i, t in enumerate(timesteps):
            views = []
            for share in (1.0, 0.5):
                view = StrictTensor(latents.data * share)
                twice = StrictTensor(np.concatenate([view.data] * 2))
                u, c = np.split(self.unet(twice, t, encoder_hidden_states=embeds).data, 2)
                noise = StrictTensor(u + guidance_scale * (c - u))
                views.append(self.scheduler.step(noise, t, view).data)
            latents = StrictTensor(views[0] * 0.5 + views[1])
            if callback_on_step_end is not None:
                latents = callback_on_step_end(self, i, t, {"latents": latents})["latents"]
        return latents.data


def test_views_are_parts_each_with_its_own_momentum() -> None:
    known, pipe, asked = Views(), unproven(Views), []

    class Kept(Momentum):
        def combine(self, u: Any, c: Any, scale: Any, step: RuleStep) -> Any:
            asked.append((step.index, step.part))
            return super().combine(u, c, scale, step)

    wanted = known(PROMPTS, **bind(known, Kept(3.0)))
    found = pipe(PROMPTS, **bind(pipe, Kept(3.0)))
    assert asked == [(index, part) for index in range(4) for part in range(2)] * 2
    np.testing.assert_allclose(found, wanted, **ROUNDING)


def test_a_property_of_a_loop_that_is_not_proven_is_not_set() -> None:
    pipe = type("Property", (Known,), {"unicb_facts": facts(verify=True)})()
    scales: list[float] = []

    class See(Callback):
        def on_step_end(self, step: Step) -> None:
            scales.append(step.guidance_scale)

    wanted = pipe(["x"], guidance_scale=3.0)
    found = pipe(["x"], **bind(pipe, Plain(3.0), See()))
    np.testing.assert_allclose(found, wanted, **ROUNDING)
    assert set(scales) == {5.0}


@pytest.mark.parametrize(
    ("pipe", "reason"),
    [
        (unproven(Rescaled), "does more to what it has combined"),
        (unproven(MomentumLoop), r"a scale of \d"),
        (unproven(BatchOfLocal, scale_names=("steps",)), "a scale of 5.*steps says 10"),
    ],
)
def test_what_is_seen_to_be_otherwise_is_refused(pipe: Any, reason: str) -> None:
    with pytest.raises(UnsupportedPipelineError, match=reason):
        pipe(PROMPTS, **bind(pipe, Plain(3.0)))
    assert left_on(pipe) == []


def test_a_loop_that_is_not_proven_and_guides_several_parts() -> None:
    pipe = unproven(BatchOfLocal, scale_follows=("_audio_guidance_scale",))
    with pytest.raises(UnsupportedPipelineError, match="only the first can be seen"):
        bind(pipe, Plain(3.0))


def test_a_loop_whose_combination_only_its_code_tells() -> None:
    with pytest.raises(UnsupportedPipelineError, match="not known to be u"):
        bind(Inferred(), Plain(3.0))


# -- what is refused, and rounding


@pytest.mark.parametrize("kind", [Known, BatchOfLocal, SwitchOfLocal])
def test_guidance_off_in_the_call(kind: Any) -> None:
    pipe = kind()
    callbacks = bind(pipe, Plain(3.0))
    reason = "cannot set a guidance rule in this run: .* with guidance off"
    with watched(pipe) as rows, pytest.raises(UnsupportedPipelineError, match=reason):
        pipe(["x"], guidance_scale=1.0, **callbacks)
    assert rows == []
    assert hooked(pipe) == []


@pytest.mark.parametrize("flag", [True, False])
def test_another_combination(flag: bool) -> None:
    class Config:
        zero_star = flag

    odd = {"unicb_facts": facts(combination="other")}
    with pytest.raises(UnsupportedPipelineError, match="not known to be u"):
        bind(type("Odd", (Known,), odd)(), Plain(3.0))
    about = facts(guidance_scale="local", other_if="zero_star")
    pipe = type("Odd", (BatchOfLocal,), {"unicb_facts": about, "config": Config})()
    if not flag:
        pipe(["x"], **bind(pipe, Plain(3.0)))
        return
    with pytest.raises(UnsupportedPipelineError, match="with zero_star in a way"):
        bind(pipe, Plain(3.0))


def test_a_scale_that_another_release_has() -> None:
    """Facts name a local that this loop lacks: it is known before the run."""
    about = facts(guidance_scale="local", scale_names=("current_scale",))
    pipe = type("Older", (BatchOfLocal,), {"unicb_facts": about})()
    with pytest.raises(UnsupportedPipelineError, match="rule on Older: its loop has no scale"):
        bind(pipe, Plain(3.0))


def test_other_things_that_cannot_be() -> None:
    none = PipelineFacts("here", cfg="none", why_none="has no classifier-free guidance")
    pipe = type("Plain", (ToyPipeline,), {"unicb_facts": none})()
    with pytest.raises(UnsupportedPipelineError, match="cannot set a guidance rule on Plain"):
        bind(pipe, Plain(3.0))
    guiders = facts(guiders=("NoneType",))
    pipe = type("Guided", (Known,), {"unicb_facts": guiders})()
    with pytest.raises(UnsupportedPipelineError, match="its guider combines"):
        bind(pipe, Plain(3.0))
    dynamic = type("Dynamic", (BatchOfLocal,), {"unicb_facts": facts(scale_set_if="do_cfg")})()
    with pytest.raises(UnsupportedPipelineError, match="do_cfg, and sets the scale itself"):
        dynamic(["x"], **bind(dynamic, Plain(3.0)))
    hidden = Known()
    hidden._callback_tensor_inputs = ("prompt_embeds",)  # type: ignore[misc]
    with pytest.raises(UnsupportedPipelineError, match="does not offer"):
        bind(hidden, Plain(3.0))


@pytest.mark.parametrize("other", [CFGCutoff(0.5), GuidanceSchedule(2.0), Plain(2.0)])
def test_two_that_decide_on_guidance(other: Any) -> None:
    with pytest.raises(ValueError, match=r"both decide on guidance: Momentum and \w+"):
        bind(Known(), Momentum(3.0), other)


def test_a_scale_that_is_set_beside_a_rule() -> None:
    class Sets(Callback):
        def on_step_end(self, step: Step) -> None:
            step.set_guidance(3.0)

    pipe = BatchOfLocal()
    with pytest.raises(UnicbError, match="one rule or a scale that is set"):
        pipe(["x"], **bind(pipe, Plain(3.0), Sets()))


class Answers(GuidanceRule):
    def __init__(self, answer: Any) -> None:
        self.answer = answer  # and no scale: that of the call

    def combine(self, unconditional: Any, conditional: Any, scale: Any, step: RuleStep) -> Any:
        return self.answer(unconditional)


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (lambda u: u.data, TypeError, "framework, not a ndarray"),
        (lambda u: None, TypeError, "not a NoneType"),
        (lambda u: u[:, :2], ValueError, r"of shape \(1, 4, 8, 8\).* of \(1, 2, 8, 8\)"),
        (lambda u: StrictTensor(u.data.astype("float16")), ValueError, "float64.*float16"),
    ],
)
@pytest.mark.parametrize("kind", [Known, CallsOfLocal])
def test_bad_answers(kind: Any, answer: Any, error: Any, message: str) -> None:
    pipe = kind()
    with pytest.raises(error, match=message):
        pipe(["x"], **bind(pipe, Answers(answer)))
    assert hooked(pipe) == []
    assert pipe.guidance_scale == 5.0


def test_answers_that_are_not_finite_are_for_the_guard() -> None:
    pipe = Known()
    rule = Answers(lambda u: u * float("nan"))
    with pytest.raises(UnicbError, match="not finite"):
        pipe(["x"], **bind(pipe, rule, NaNGuard(every=1)))


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"scale": -1.0}, ValueError, "Plain's scale must be 0 or more, not -1.0"),
        ({"scale": "5"}, TypeError, "Plain's scale must be a number"),
        ({"scale": []}, ValueError, "empty table"),
        ({"interval": 0.5}, TypeError, "interval must be two shares"),
        ({"interval": (0.5, 0.2)}, ValueError, "must start before it stops"),
        ({"interval": (0.5, 1.2)}, ValueError, r"the stop of interval .* must lie in 0\.\.1"),
    ],
)
def test_bad_arguments(given: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Plain(**given)


def test_a_function_that_answers_badly() -> None:
    with pytest.raises(TypeError, match="must be a number, not None"):
        bind(Known(), Plain(lambda progress: None))  # type: ignore[arg-type, return-value]


class Half(BatchOfLocal):
    """Predicts, combines and steps in a dtype of its own."""

    dtype_of_loop = "float16"

    def start(self, *args: Any) -> Any:
        first, *others, timesteps = super().start(*args)
        cast = [StrictTensor(x.data.astype(self.dtype_of_loop)) for x in (first, *others)]
        return (*cast, timesteps)

    def combine(self, u: StrictTensor, c: StrictTensor, scale: float) -> StrictTensor:  # type: ignore[override]
        return StrictTensor((u.data + scale * (c.data - u.data)).astype(self.dtype_of_loop))


class Narrow:
    """A denoiser that answers in a dtype."""

    def __init__(self, dtype: str) -> None:
        self.own, self.dtype = ToyPipeline().unet, dtype

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return StrictTensor(self.own.forward(*args, **kwargs).data.astype(self.dtype))


def off(dtype: str, called: float) -> float:
    """How far plain guidance of 5 is off in a loop of that dtype, called with another scale, as a
    share of what guidance does."""
    pipe = type("Loop", (Half,), {"dtype_of_loop": dtype})()
    pipe.unet = Narrow(dtype)
    exact = BatchOfLocal()
    wanted = exact(["x"], guidance_scale=5.0)
    effect = np.abs(wanted - exact(["x"], guidance_scale=1.001)).max()
    found = pipe(["x"], guidance_scale=called, **bind(pipe, Plain(5.0)))
    return float(np.abs(np.asarray(found, np.float64) - wanted).max() / effect)


@pytest.mark.parametrize(("dtype", "most"), [("float16", 0.1), ("float32", 1e-4)])
def test_rounding_that_the_loop_amplifies(
    dtype: str, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Down to the distance that is refused it is bearable, and below it is not."""
    from unicb.guidance import _rule

    least = _rule.LEAST[dtype]
    assert off(dtype, 1.0 + 1.01 * least) < most
    with pytest.raises(UnsupportedPipelineError, match=rf"amplify \d+ times, .* least {least:g} "):
        off(dtype, 1.0 + 0.5 * least)
    monkeypatch.setattr(_rule, "LEAST", {})
    assert off(dtype, 1.0 + 0.02 * least) > most


def test_a_rule_is_handed_float32_of_halves() -> None:
    seen: list[str] = []

    class Dtypes(Plain):
        def combine(self, u: Any, c: Any, scale: Any, step: RuleStep) -> Any:
            seen.extend((str(u.dtype), str(c.dtype)))
            return super().combine(u, c, scale, step)

    pipe = Half()
    pipe.unet = Narrow("float16")
    answers: list[str] = []
    own = pipe.combine
    pipe.combine = lambda u, c, g: answers.append(str(u.dtype)) or own(u, c, g)  # type: ignore[func-returns-value]
    pipe(["x"], **bind(pipe, Dtypes(3.0)))
    assert set(seen) == {"float32"}
    assert set(answers) == {"float16"}


@pytest.mark.parametrize("called", [1.0001, 1.5, 40.0])
def test_a_scale_that_is_read_at_each_step_amplifies_nothing(called: float) -> None:
    """It is set so that the loop multiplies by 1; and put back."""
    pipe = Known(dtype="float32")
    wanted = pipe(["x"], guidance_scale=5.0)
    scales: list[float] = []

    class See(Callback):
        def on_step_end(self, step: Step) -> None:
            scales.append(step.guidance_scale)

    found = pipe(["x"], guidance_scale=called, **bind(pipe, Plain(5.0), See()))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    assert set(scales) == {2.0}
    assert pipe.guidance_scale == called
