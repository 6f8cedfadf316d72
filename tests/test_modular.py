"""Modular pipelines: their steps are noticed by the ``loop_step`` of their loop blocks."""

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Callable as Function
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from looking import Look
from modular_toy import (
    Advance,
    Denoise,
    Guider,
    Inner,
    Loop,
    ModularToy,
    Parts,
    Sequence,
    SetState,
    SkipGuider,
    TermsGuider,
    parameter,
)
from scheduled import OnDevice, Timesteps

from unicb import (
    Callback,
    CFGCutoff,
    GenerationCancelled,
    GuidanceInterval,
    GuidanceRule,
    GuidanceSchedule,
    Interrupt,
    NaNGuard,
    Preview,
    Progress,
    PromptSchedule,
    Result,
    RuleStep,
    Step,
    Trajectory,
    UnsupportedPipelineError,
    bind,
    sibling,
    stream,
)
from unicb_numpy.ops import StrictTensor


class LookAtPrompts(Look):
    """Asks for the prompt's embeddings, too."""

    tensors = ("latents", "prompt_embeds")


class SetLoop(Loop):
    """A loop whose state is written by ``set`` alone."""

    state_class = SetState


GUIDERS: dict[str, Function[..., Guider]] = {
    "two predictions": Guider,
    "a third, counted": SkipGuider,
    "a third, as a term": TermsGuider,
}
LOOPS = pytest.mark.parametrize("loop", [Loop, SetLoop])


def cut_by_hand(make: Function[..., Guider], after: int, **kwargs: Any) -> Any:
    """What a call gives in which the unconditional prediction is the conditional one, in steps
    after this one."""
    guider = make()
    plain = guider.forward

    def forward(pred_cond: Any, pred_uncond: Any = None, **more: Any) -> Any:
        assert guider._step is not None
        return plain(pred_cond, pred_cond if guider._step > after else pred_uncond, **more)

    guider.forward = forward  # type: ignore[method-assign]
    return ModularToy(guider)("a lighthouse", **kwargs)


def error(a: Any, b: Any) -> float:
    return float(np.abs(np.asarray(a, float) - np.asarray(b, float)).max())


@LOOPS
@pytest.mark.parametrize("order", [1, 2])
def test_steps_are_noticed_and_change_nothing(loop: type[Loop], order: int) -> None:
    pipe, look = ModularToy(loop=loop(), order=order), LookAtPrompts()
    plain = pipe("a lighthouse", output="latents")
    assert np.array_equal(bind(pipe, look)("a lighthouse", output="latents"), plain)
    steps = 10 if order == 1 else 19
    assert look.seen == [(index, steps) for index in range(steps)]
    assert np.array_equal(look.latents[-1], plain)
    assert [run.outcome for run in look.runs] == ["finished"]


@LOOPS
@pytest.mark.parametrize("name", ["latents", "prompt_embeds"])
def test_an_edit_reaches_the_loop(loop: type[Loop], name: str) -> None:
    class Edit(Callback):
        tensors = (name,)

        def on_step_end(self, step: Step) -> None:
            if step.index == 3:
                step[name] = step[name] * 0.5

    class EditedLoop(loop):  # type: ignore[misc,valid-type]
        def loop_step(self, components: Any, state: Any, **kwargs: Any) -> Any:
            components, state = super().loop_step(components, state, **kwargs)
            if kwargs["i"] == 3:
                value = getattr(state, name) * 0.5
                values = vars(state).get("values", vars(state))
                values[name] = value
                if name in state.denoiser_input_fields:
                    state.denoiser_input_fields[name] = value
            return components, state

    pipe, edited = ModularToy(loop=loop()), ModularToy(loop=EditedLoop())
    got = bind(pipe, Edit())("a lighthouse", output="latents")
    assert np.array_equal(got, edited("a lighthouse", output="latents"))
    assert not np.array_equal(got, pipe("a lighthouse", output="latents"))


def test_runs_follow_each_other_and_plain_calls_are_unseen() -> None:
    pipe, look = ModularToy(), LookAtPrompts()
    callbacks = bind(pipe, look)
    for _ in range(2):
        callbacks("a lighthouse", num_inference_steps=4)
    pipe("a lighthouse")
    assert look.seen == [(index, 4) for index in range(4)] * 2
    assert len(look.runs) == 2
    assert type(pipe._blocks.sub_blocks["loop"]) is Loop


def test_a_call_in_a_callback_is_anothers() -> None:
    pipe, look = ModularToy(), LookAtPrompts()
    other = sibling(pipe)
    inner: list[Any] = []

    class Nested(Callback):
        tensors = ("latents",)

        def on_step_end(self, step: Step) -> None:
            if step.index == 5:
                inner.append(other("a cat", num_inference_steps=3))

    bind(pipe, CFGCutoff(0.2), Nested(), look)("a lighthouse")
    assert len(look.seen) == 10
    assert np.array_equal(inner[0], ModularToy()("a cat", num_inference_steps=3))


@pytest.mark.parametrize("title", GUIDERS)
def test_a_cut_is_exact_and_saves_the_calls(title: str) -> None:
    make = GUIDERS[title]
    pipe = ModularToy(make())
    plain, calls = pipe("a lighthouse", output="latents"), pipe.unet.calls
    pipe.unet.calls = 0
    got = bind(pipe, CFGCutoff(cutoff_step_index=3))("a lighthouse", output="latents")
    want = cut_by_hand(make, 3, output="latents")
    assert error(got, want) < 1e-6
    assert error(plain, want) > 1e-2
    assert pipe.unet.calls == calls - 6
    assert np.array_equal(pipe("a lighthouse", output="latents"), plain)


@pytest.mark.parametrize("title", GUIDERS)
def test_an_interval_begins_before_the_first_step(title: str) -> None:
    make = GUIDERS[title]
    pipe, calls = ModularToy(make()), []
    for interval in ((0.0, 1.0), (0.3, 0.6)):
        pipe.unet.calls = 0
        got = bind(pipe, GuidanceInterval(*interval))("a lighthouse", output="latents")
        calls.append(pipe.unet.calls)
    assert calls[0] - calls[1] == 6

    guider = make()
    plain = guider.forward

    def forward(pred_cond: Any, pred_uncond: Any = None, **more: Any) -> Any:
        inside = guider._step is not None and 3 <= guider._step <= 6
        return plain(pred_cond, pred_uncond if inside else pred_cond, **more)

    guider.forward = forward  # type: ignore[method-assign]
    assert error(got, ModularToy(guider)("a lighthouse", output="latents")) < 1e-6


def test_a_guider_that_stops_by_itself_is_left_to_it() -> None:
    pipe = ModularToy(Guider(stop=0.3))
    plain = pipe("a lighthouse", output="latents")
    assert np.array_equal(bind(pipe, CFGCutoff(0.6))("a lighthouse", output="latents"), plain)


def test_a_schedule_sets_the_guiders_scale() -> None:
    pipe = ModularToy(Guider(3.0))
    got = bind(pipe, GuidanceSchedule([(0, 5.0)]))("a lighthouse", output="latents")
    assert np.array_equal(got, ModularToy(Guider(5.0))("a lighthouse", output="latents"))
    assert pipe.guider.guidance_scale == 3.0
    pipe.unet.calls = 0
    bind(pipe, GuidanceSchedule([(0, 1.0)]))("a lighthouse")
    assert pipe.unet.calls == 10


def test_a_schedule_wants_guidance() -> None:
    with pytest.raises(UnsupportedPipelineError, match="no guider of this ModularToy guides any"):
        bind(ModularToy(Guider(1.0)), GuidanceSchedule([(0, 5.0), (1, 2.0)]))("a lighthouse")


def test_a_guider_without_a_scale_is_refused() -> None:
    pipe = ModularToy()
    pipe.guider.guidance_scale = [5.0, 3.0]
    with pytest.raises(UnsupportedPipelineError, match="its Guider has no guidance_scale that is"):
        bind(pipe, GuidanceSchedule([(0, 5.0), (1, 2.0)]))


def test_a_guider_of_another_kind_is_refused() -> None:
    class Other(Guider):
        def names(self) -> list[str]:
            return ["pred_cond", "pred_uncond"]

    with pytest.raises(UnsupportedPipelineError, match="a Other, is left with the conditional"):
        bind(ModularToy(Other()), CFGCutoff(0.4))


def test_a_loop_that_does_not_ask_its_guider_is_seen() -> None:
    class Deaf(Denoise):
        def __call__(self, components: Any, state: Any, i: int, t: Any) -> Any:
            if i > 4:
                components.unet(state.latents, t, encoder_hidden_states=state.prompt_embeds)
            return super().__call__(components, state, i, t)

    loop = Loop()
    loop.sub_blocks["denoise"] = Deaf()
    pipe = ModularToy(loop=loop)
    with pytest.raises(UnsupportedPipelineError, match="called its denoiser 2 times in a step"):
        bind(pipe, CFGCutoff(0.4))("a lighthouse")


def test_an_interrupted_run_gives_its_picture() -> None:
    pipe, look = ModularToy(), LookAtPrompts()
    callbacks = bind(pipe, look, Interrupt(3, picture="latents"))
    got = callbacks("a lighthouse", output="latents")
    assert len(look.seen) == 4
    assert np.array_equal(got, look.latents[-1])
    assert callbacks.state == "interrupted"
    assert pipe.unet.calls == 8


def test_an_interrupted_run_gives_the_denoised_picture() -> None:
    pipe = ModularToy()
    shown: list[Any] = []

    class Keep(Callback):
        tensors = ("latents",)

        def on_step_end(self, step: Step) -> None:
            shown.append(step.denoised())

    got = bind(pipe, Keep(), Interrupt(3))("a lighthouse", output="latents")
    expected = shown[-1]
    assert expected is not None
    assert error(got, expected.data) < 1e-6


@pytest.mark.parametrize("now", [False, True])
def test_a_cancelled_run_logs_no_error(now: bool, caplog: pytest.LogCaptureFixture) -> None:
    pipe = ModularToy()

    class Stop(Callback):
        def on_step_end(self, step: Step) -> None:
            if step.index == 2:
                callbacks.cancel(now=now)

    callbacks = bind(pipe, Stop())
    plain = pipe("a lighthouse")
    with caplog.at_level(logging.WARNING), pytest.raises(GenerationCancelled):
        callbacks("a lighthouse")
    assert caplog.records == []
    assert callbacks.state == "cancelled"
    assert np.array_equal(pipe("a lighthouse"), plain)


def test_an_error_of_a_callback_is_raised_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    pipe = ModularToy()

    def fail(*_: Any) -> dict[str, Any]:
        raise KeyError("mine")

    callbacks = bind(pipe, fail)
    with caplog.at_level(logging.WARNING), pytest.raises(KeyError, match="mine"):
        callbacks("a lighthouse")
    assert caplog.records == []
    assert callbacks.state == "failed"


def test_an_error_of_a_block_is_raised_as_it_is() -> None:
    class Broken(Advance):
        def __call__(self, components: Any, state: Any, i: int, t: Any) -> Any:
            if i == 3:
                raise ZeroDivisionError("theirs")
            return super().__call__(components, state, i, t)

    loop, look = Loop(), LookAtPrompts()
    loop.sub_blocks["advance"] = Broken()
    pipe = ModularToy(loop=loop)
    with pytest.raises(ZeroDivisionError, match="theirs"):
        bind(pipe, look)("a lighthouse")
    assert [run.outcome for run in look.runs] == ["failed"]
    assert type(loop) is Loop


def test_two_loops_in_a_call_are_two_runs() -> None:
    pipe, look = ModularToy(), LookAtPrompts()
    encode, decode = (pipe._blocks.sub_blocks[name] for name in ("encode", "decode"))
    first, second = Loop(), Loop()
    pipe._blocks = Sequence(encode=encode, first=first, second=second, decode=decode)
    bind(pipe, look)("a lighthouse", num_inference_steps=3)
    assert look.seen == [(0, 3), (1, 3), (2, 3)] * 2
    assert len(look.runs) == 2


def test_a_stop_in_the_first_loop_stops_the_second() -> None:
    pipe, look = ModularToy(), LookAtPrompts()
    encode, decode = (pipe._blocks.sub_blocks[name] for name in ("encode", "decode"))
    pipe._blocks = Sequence(encode=encode, first=Loop(), second=Loop(), decode=decode)

    class Once(Callback):
        def on_step_end(self, step: Step) -> None:
            if len(look.runs) == 1 and step.index == 1:
                step.interrupt()

    bind(pipe, look, Once())("a lighthouse", num_inference_steps=4)
    assert look.seen == [(0, 4), (1, 4)]
    assert pipe.unet.calls == 4


def test_unpacking_says_what_to_write() -> None:
    pipe = ModularToy()
    callbacks = bind(pipe, LookAtPrompts())
    with pytest.raises(UnsupportedPipelineError, match="as in callbacks\\(prompt"):
        pipe("a lighthouse", **callbacks)
    callbacks("a lighthouse")


def test_tensors_that_no_block_has_are_refused() -> None:
    class Wants(Look):
        tensors = ("image_latents",)

    with pytest.raises(UnsupportedPipelineError, match="latents, prompt_embeds, negative_prompt"):
        bind(ModularToy(), Wants())


def test_functions_get_what_the_state_has() -> None:
    seen: list[set[str]] = []

    def look(pipe: Any, index: int, timestep: float, tensors: dict[str, Any]) -> dict[str, Any]:
        seen.append({*tensors})
        return {}

    bind(ModularToy(), look)("a lighthouse", num_inference_steps=1)
    assert seen == [{"latents", "prompt_embeds", "negative_prompt_embeds"}]


def test_blocks_that_were_changed_are_refused() -> None:
    pipe = ModularToy()
    callbacks = bind(pipe, LookAtPrompts())
    pipe._blocks.sub_blocks["loop"] = Loop()
    with pytest.raises(UnsupportedPipelineError, match="blocks of this ModularToy were changed"):
        callbacks("a lighthouse")
    bind(pipe, LookAtPrompts())("a lighthouse")


class Chunks(Loop):
    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        block_state = self.block_state(state)
        for k in range(3):
            components, block_state = self.loop_step(components, block_state, k=k)
        return components, state


class Adds(Loop):
    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        block_state = self.block_state(state)
        for i, t in enumerate(block_state.timesteps):
            components, block_state = self.loop_step(components, block_state, i=i, t=t)
            block_state.latents = block_state.latents + 1.0
        return components, state


class Hides(Loop):
    """A block that loops inside."""

    loop_step = None  # type: ignore[assignment]

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        for t in state.timesteps:
            state.set("latents", components.scheduler.step(state.latents, t, state.latents))
        return components, state


@pytest.mark.parametrize(
    ("loop", "why"),
    [
        (Chunks, "its Chunks goes over more than steps, of which it says k"),
        (Adds, "its Adds changes block_state.latents otherwise than in loop_step"),
        (Hides, "Hides steps a scheduler in a loop of its own|none of its blocks is a loop"),
    ],
)
def test_loops_whose_steps_cannot_be_noticed_are_refused(loop: type[Loop], why: str) -> None:
    pipe = ModularToy()
    if loop is Hides:
        encode = pipe._blocks.sub_blocks["encode"]
        hidden = type("Hidden", (type(encode),), {"__call__": Hides.__call__})()
        pipe._blocks = Sequence(encode=encode, first=Loop(), hidden=hidden)
        why = "its Hidden steps a scheduler in a loop of its own"
    else:
        pipe._blocks.sub_blocks["loop"] = loop()
    with pytest.raises(UnsupportedPipelineError, match=why):
        bind(pipe, LookAtPrompts())


def test_a_pipeline_without_a_loop_is_refused() -> None:
    pipe = ModularToy()
    pipe._blocks = Sequence(encode=pipe._blocks.sub_blocks["encode"])
    with pytest.raises(UnsupportedPipelineError, match="none of its blocks is a loop"):
        bind(pipe, LookAtPrompts())


def test_prompts_are_refused() -> None:
    with pytest.raises(UnsupportedPipelineError, match="a block of it encodes its prompts"):
        bind(ModularToy(), PromptSchedule([(0, "a"), (1, "b")]))


def test_what_shows_and_keeps_works(tmp_path: Path) -> None:
    pipe = ModularToy()
    trajectory = Trajectory(tmp_path / "run.npz")
    callbacks = bind(
        pipe, Preview(tmp_path / "{step:03d}.png"), trajectory, NaNGuard(), Progress(lambda _: None)
    )
    callbacks("a lighthouse", num_inference_steps=4)
    assert len([*tmp_path.glob("*.png")]) == 4


def test_it_streams() -> None:
    pipe = ModularToy()
    events = [*stream(pipe, "a lighthouse", num_inference_steps=4)]
    assert isinstance(events[-1], Result)
    assert np.array_equal(events[-1].output, pipe("a lighthouse", num_inference_steps=4))


def test_siblings_run_at_the_same_time() -> None:
    pipe = ModularToy()
    pipes = [pipe, sibling(pipe)]
    prompts = ["a lighthouse", "a cat"]
    plain = [
        copy.copy(p)(prompt, output="latents") for p, prompt in zip(pipes, prompts, strict=True)
    ]
    got: dict[str, Any] = {}

    def call(p: ModularToy, prompt: str) -> None:
        for _ in range(5):
            got[prompt] = bind(p, CFGCutoff(0.9))(prompt, output="latents")

    threads = [threading.Thread(target=call, args=x) for x in zip(pipes, prompts, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for prompt, latents in zip(prompts, plain, strict=True):
        assert error(got[prompt], latents) < 1.0
    assert pipes[0].guider is not pipes[1].guider


def test_names_without_a_tensor_are_no_tensors() -> None:
    loop = Loop()
    loop.inputs = [*Loop.inputs, parameter("eta", hint="float")]  # type: ignore[misc]

    class Wants(Look):
        tensors = ("eta",)

    with pytest.raises(UnsupportedPipelineError, match="offers no tensor called 'eta'"):
        bind(ModularToy(loop=loop), Wants())


def test_none_is_handed_where_a_run_has_none() -> None:
    loop = Loop()
    loop.inputs = [*Loop.inputs, parameter("mask")]  # type: ignore[misc]
    seen: list[Any] = []

    class Looks(Callback):
        tensors = ("mask", "latents")

        def on_step_end(self, step: Step) -> None:
            seen.append(step["mask"])
            assert isinstance(step["latents"], StrictTensor)

    bind(ModularToy(loop=loop), Looks())("a lighthouse", num_inference_steps=2)
    assert seen == [None, None]


def test_no_number_is_read_from_the_device() -> None:
    class FromDevice(Denoise):
        def __call__(self, components: Any, state: Any, i: int, t: Any) -> Any:
            return super().__call__(components, state, i, t.value)

    class ToDevice(Advance):
        def __call__(self, components: Any, state: Any, i: int, t: Any) -> Any:
            return super().__call__(components, state, i, t.value)

    class DeviceLoop(Loop):
        def block_state(self, state: Any) -> Any:
            made = super().block_state(state)
            made.timesteps = Timesteps([OnDevice(t) for t in made.timesteps])
            return made

    loop, look = DeviceLoop(), LookAtPrompts()
    loop.sub_blocks = {"denoise": FromDevice(), "advance": ToDevice()}
    pipe = ModularToy(loop=loop)
    plain = ModularToy()("a lighthouse", output="latents")
    got = bind(pipe, look, GuidanceInterval(0.0, 1.0))("a lighthouse", output="latents")
    assert np.array_equal(got, plain)
    assert look.seen == [(index, 10) for index in range(10)]
    bind(pipe, CFGCutoff(0.4))("a lighthouse")
    bind(pipe, GuidanceSchedule([(0, 5.0), (1, 1.0)]))("a lighthouse")


def test_loops_inside_parts_are_noticed_by_their_scheduler() -> None:
    pipe, note = ModularToy(loop=Parts()), Look()
    plain = pipe("a lighthouse", output="latents", num_inference_steps=3)
    got = bind(pipe, note)("a lighthouse", output="latents", num_inference_steps=3)
    assert np.array_equal(got, plain)
    assert note.seen == [(0, 3), (1, 3), (2, 3)] * 2
    assert len(note.runs) == 2


def test_a_cut_in_each_part_is_exact() -> None:
    pipe = ModularToy(loop=Parts())
    guider = Guider()
    plain = guider.forward

    def forward(pred_cond: Any, pred_uncond: Any = None) -> Any:
        return plain(pred_cond, pred_cond if (guider._step or 0) > 3 else pred_uncond)

    guider.forward = forward  # type: ignore[method-assign]
    expected = ModularToy(guider, loop=Parts())("a lighthouse", output="latents")
    got = bind(pipe, CFGCutoff(cutoff_step_index=3))("a lighthouse", output="latents")
    assert error(got, expected) < 1e-6
    assert pipe.unet.calls == 2 * (4 * 2 + 6)


def test_a_stop_ends_the_parts_that_are_left() -> None:
    """In each of them, the loop runs in another frame."""
    for _ in range(5):
        pipe, note = ModularToy(loop=Parts()), Look()
        callbacks = bind(pipe, note, Interrupt(1, picture="latents"))
        got = callbacks("a lighthouse", output="latents", num_inference_steps=4)
        assert np.array_equal(got, note.latents[1])
        assert len(note.runs) == 1
        assert pipe.unet.calls == 4
    Inner.frames.clear()


@pytest.mark.parametrize("now", [False, True])
def test_a_cancel_inside_a_part_logs_no_error(now: bool, caplog: pytest.LogCaptureFixture) -> None:
    pipe = ModularToy(loop=Parts())

    class Stop(Look):
        def on_step_end(self, step: Step) -> None:
            if step.index == 2:
                callbacks.cancel(now=now)

    callbacks = bind(pipe, Stop())
    with caplog.at_level(logging.WARNING), pytest.raises(GenerationCancelled):
        callbacks("a lighthouse")
    assert caplog.records == []


def test_parts_offer_their_latents_alone() -> None:
    with pytest.raises(UnsupportedPipelineError, match="it offers: latents"):
        bind(ModularToy(loop=Parts()), LookAtPrompts())


class Plain(GuidanceRule):
    """Classifier-free guidance, and what it is told of its steps."""

    def __init__(
        self, scale: float | None = None, interval: tuple[float, float] | None = None
    ) -> None:
        super().__init__(scale=scale, interval=interval or (0.0, 1.0))
        self.seen: list[tuple[int, int, int, float]] = []

    def combine(self, unconditional: Any, conditional: Any, scale: Any, step: RuleStep) -> Any:
        self.seen.append((step.index, step.num_timesteps, step.part, float(scale)))
        return unconditional + (conditional - unconditional) * scale


@LOOPS
def test_a_rule_takes_the_guiders_place(loop: type[Loop]) -> None:
    pipe, rule = ModularToy(Guider(3.0), loop=loop()), Plain(5.0)
    expected = ModularToy(Guider(5.0))("a lighthouse", output="latents")
    assert error(bind(pipe, rule)("a lighthouse", output="latents"), expected) < 1e-6
    assert rule.seen == [(index, 10, 0, 5.0) for index in range(10)]
    plain = ModularToy(Guider(3.0))("a lighthouse", output="latents")
    assert np.array_equal(pipe("a lighthouse", output="latents"), plain)


def test_a_rule_without_a_scale_has_the_guiders() -> None:
    rule = Plain()
    bind(ModularToy(Guider(3.0)), rule)("a lighthouse", num_inference_steps=2)
    assert [scale for *_, scale in rule.seen] == [3.0, 3.0]


def test_a_rule_is_not_asked_after_a_cut() -> None:
    pipe, rule = ModularToy(), Plain(5.0, interval=(0.0, 0.3))
    got = bind(pipe, rule)("a lighthouse", output="latents")
    assert error(got, cut_by_hand(Guider, 3, output="latents")) < 1e-6
    assert len(rule.seen) == 4


def test_a_rule_takes_two_predictions() -> None:
    with pytest.raises(UnsupportedPipelineError, match="a SkipGuider, takes more predictions"):
        bind(ModularToy(SkipGuider()), Plain(5.0))


def test_a_rule_wants_guidance() -> None:
    with pytest.raises(UnsupportedPipelineError, match="no guider of this ModularToy guides any"):
        bind(ModularToy(Guider(1.0)), Plain(5.0))("a lighthouse")
