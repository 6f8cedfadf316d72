"""Interrupt: after a step, when a function says so, before a deadline."""

from __future__ import annotations

import gc
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from unicb import Callback, Interrupt, Step, UnsupportedPipelineError, bind
from unicb.pipelines import PipelineFacts
from unicb_numpy.ops import StrictTensor
from unicb_numpy.pipelines import ToyPipeline

STEPS = 10


class Clock:
    """Seconds that pass where a test says so: all clocks of unicb read it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        ours = SimpleNamespace(monotonic=lambda: self.now)
        for module in ("callbacks.interrupt", "run.call", "run.decoding", "run.handle"):
            monkeypatch.setattr(f"unicb.{module}.time", ours)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


class TimedPipeline(ToyPipeline):
    """The toy, whose parts take as long as the test says, on that clock."""

    def __init__(self, clock: Clock, step: float | list[float], encode: float = 0.0) -> None:
        super().__init__()
        self.clock, self.encode = clock, encode
        self.seconds = [step] * 1000 if isinstance(step, float | int) else step
        self.calls = 0
        forward = self.unet.forward

        def computed(*args: Any, **kwargs: Any) -> Any:
            clock.now += self.seconds[self.calls]
            self.calls += 1
            return forward(*args, **kwargs)

        self.unet.forward = computed  # type: ignore[method-assign]

    def encode_prompt(self, prompts: Any) -> Any:
        self.clock.now += self.encode / 2  # guided: it is called twice
        return super().encode_prompt(prompts)


class Note(Callback):
    tensors = ("latents",)

    def __init__(self) -> None:
        self.latents: list[Any] = []

    def on_step_end(self, step: Step) -> None:
        self.latents.append(step.ops.to_numpy(step["latents"]))
        self.denoised = step.ops.to_numpy(step.denoised() or step["latents"])

    @property
    def steps(self) -> int:
        return len(self.latents)


def run(pipe: Any, *callbacks: Any, picture: str = "denoised", **kwargs: Any) -> tuple[int, Any]:
    """Steps that were run, and the picture's latents, which are to be these."""
    note = Note()
    keywords = {"num_inference_steps": STEPS, "output_type": "latent", **kwargs}
    out = pipe("x", **keywords, **bind(pipe, *callbacks, note))
    assert np.array_equal(out, note.denoised if picture == "denoised" else note.latents[-1])
    return note.steps, out


# --- after a step


@pytest.mark.parametrize(("step", "ran"), [(0, 1), (4, 5), (9, 10), (10, 10), (1000, 10)])
def test_after_a_step(pipe: ToyPipeline, step: int, ran: int) -> None:
    assert run(pipe, Interrupt(step))[0] == ran


def test_step_beyond_the_last_changes_nothing(pipe: ToyPipeline) -> None:
    callbacks = bind(pipe, Interrupt(STEPS))
    out = pipe("x", num_inference_steps=STEPS, output_type="latent", **callbacks)
    assert callbacks.state == "finished"
    assert np.array_equal(out, run(pipe)[1])


@pytest.mark.parametrize("step", [-1, 1.5, True, "3"])
def test_steps_that_are_none(step: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="step"):
        Interrupt(step)


def test_no_condition_at_all() -> None:
    with pytest.raises(ValueError, match=r"Interrupt\(when=.*Interrupt\(deadline="):
        Interrupt()


# --- when


ANSWERS: dict[str, Callable[[Any], Any]] = {
    "bool": lambda x: bool(x),
    "numpy": lambda x: np.bool_(x),
    "tensor": lambda x: StrictTensor(np.array(x)),
    "tensor of one": lambda x: StrictTensor(np.array([[float(x)]])),
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_when_it_says_so(pipe: ToyPipeline, answer: Callable[[Any], Any]) -> None:
    asked: list[int] = []

    def when(step: Step) -> Any:
        asked.append(step.index)
        return answer(step.index >= 3)

    assert run(pipe, Interrupt(when=when))[0] == 4
    assert asked == [0, 1, 2, 3]


def test_when_reads_the_tensors_it_names(pipe: ToyPipeline) -> None:
    def settled(step: Step) -> Any:
        return float(np.abs(step.ops.to_numpy(step["latents"])).mean()) < 0.75

    steps, _ = run(pipe, Interrupt(when=settled))
    assert 1 < steps < STEPS
    latents = run(pipe, Interrupt(when=settled, picture="latents"), picture="latents")[1]
    assert np.abs(latents).mean() < 0.75
    with pytest.raises(LookupError, match="declares prompt_embeds"):
        run(pipe, Interrupt(when=settled, tensors=["prompt_embeds"]))
    with pytest.raises(UnsupportedPipelineError, match="offers no tensor called 'noise'"):
        bind(pipe, Interrupt(when=settled, tensors=["noise"]))


def test_when_may_change_what_is_decoded(pipe: ToyPipeline) -> None:
    """Asked at every step, also at one where another condition has said so."""

    def zero_at_two(step: Step) -> bool:
        if step.index == 2:
            step["latents"] = step["latents"] * 0
        return False

    steps, latents = run(pipe, Interrupt(2, when=zero_at_two), picture="latents")
    assert steps == 3
    assert not latents.any()


@pytest.mark.parametrize("answer", [None, 1, 0, "yes", StrictTensor(np.zeros((2, 1)))])
def test_answers_that_are_no_bool(pipe: ToyPipeline, answer: Any) -> None:
    callbacks = bind(pipe, Interrupt(when=lambda step: answer))
    with pytest.raises(TypeError, match="must answer with a bool, or with a tensor of one element"):
        pipe("x", **callbacks)
    assert callbacks.state == "failed"


def test_when_that_raises(pipe: ToyPipeline) -> None:
    plain = run(pipe)[1]
    callbacks = bind(pipe, Interrupt(when=lambda step: 1 / (2 - step.index)))
    with pytest.raises(TypeError):  # 1/2 is no bool
        pipe("x", **callbacks)
    with pytest.raises(ZeroDivisionError):
        pipe("x", **bind(pipe, Interrupt(when=lambda step: bool(1 // (2 - step.index) > 5))))
    assert np.array_equal(run(pipe)[1], plain)


@pytest.mark.parametrize("when", [True, 3, "index > 3"])
def test_when_that_cannot_be_called(when: Any) -> None:
    with pytest.raises(TypeError, match="when must be a function of a Step"):
        Interrupt(when=when)


def test_first_condition_counts(pipe: ToyPipeline, clock: Clock) -> None:
    assert run(pipe, Interrupt(5, when=lambda step: step.index == 2, deadline=1e6))[0] == 3
    assert run(pipe, Interrupt(1, when=lambda step: step.index == 2, deadline=1e6))[0] == 2


# --- deadline


@pytest.mark.parametrize(
    ("deadline", "ran"),
    # A step takes 1 s; in binary, these sums are exact.
    [(0.5, 1), (1.0, 1), (1.75, 1), (2.0, 2), (4.5, 4), (9.75, 9), (10.0, 10), (50.0, 10)],
)
def test_run_ends_by_its_deadline(clock: Clock, deadline: float, ran: int) -> None:
    pipe, began = TimedPipeline(clock, 1.0), clock.now
    assert run(pipe, Interrupt(deadline=deadline))[0] == ran
    assert clock.now - began <= max(deadline, 1.0)


def test_time_before_the_loop_counts(clock: Clock) -> None:
    """What is known after the first step is the time since the call."""
    pipe = TimedPipeline(clock, 1.0, encode=2.0)
    assert run(pipe, Interrupt(deadline=5.75))[0] == 1  # another might take 3 s, as far as is known
    assert run(pipe, Interrupt(deadline=6.0))[0] == 4
    assert run(pipe, Interrupt(deadline=7.0))[0] == 5


def test_longest_of_the_last_three_steps_counts(clock: Clock) -> None:
    seconds = [1.0, 1.0, 3.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    # After steps 2 to 4, 3 s are expected of the next; after step 5 (at 8 s), 1 s again.
    for deadline, ran in ((7.75, 3), (8.0, 4), (9.0, 5), (9.75, 5), (10.0, 8)):
        pipe = TimedPipeline(clock, list(seconds))
        assert run(pipe, Interrupt(deadline=deadline))[0] == ran, deadline


def slow_to_decode(clock: Clock, seconds: float) -> Callback:
    """Hands the loop latents that take so long to decode, which the toy does with a division."""

    class Decoded(np.ndarray[Any, Any]):
        def __truediv__(self, other: Any) -> Any:
            clock.now += seconds
            return np.asarray(self) / other

    class Latents(StrictTensor):
        def __init__(self, data: Any) -> None:
            self.data = np.asarray(data).view(Decoded)

    class HandOver(Callback):
        tensors = ("latents",)

        def on_step_end(self, step: Step) -> None:
            step["latents"] = Latents(step["latents"].data)

    return HandOver()


def test_decoding_counts_once_it_has_been_timed(clock: Clock) -> None:
    """The first call of a binding knows nothing of it; the next ones return before the deadline."""
    pipe, note = TimedPipeline(clock, 1.0), Note()
    stop = Interrupt(deadline=8.0, picture="latents")
    callbacks = bind(pipe, stop, slow_to_decode(clock, 3.0), note)
    for steps, seconds in ((8, 11.0), (5, 8.0), (5, 8.0)):
        began, before = clock.now, note.steps
        pipe("x", num_inference_steps=STEPS, **callbacks)
        assert (note.steps - before, clock.now - began) == (steps, seconds)
    assert callbacks.state == "interrupted"


def test_failed_decoding_is_not_taken_for_a_long_one(clock: Clock) -> None:
    """Its traceback may be kept until long after, as a notebook does."""
    pipe, note = TimedPipeline(clock, 1.0), Note()

    class Latents(StrictTensor):
        def __init__(self, data: Any) -> None:
            self.data = data.astype(object)  # which cannot be clipped as numbers

    class Spoil(Callback):
        tensors = ("latents",)

        def on_step_end(self, step: Step) -> None:
            if step.index == 3 and kept is None:
                step["latents"] = Latents(step["latents"].data * 1j)

    callbacks = bind(pipe, note, Spoil(), Interrupt(3, deadline=50.0, picture="latents"))
    kept = None
    try:
        pipe("x", num_inference_steps=STEPS, **callbacks)
    except TypeError as error:
        kept = error
    assert kept is not None
    clock.now += 500
    note.latents.clear()
    keywords = {**callbacks}  # the next call begins here, and only then the traceback goes
    kept.__traceback__ = None
    gc.collect()
    pipe("x", num_inference_steps=STEPS, **keywords)
    assert note.steps == 4


def test_binding_that_is_used_later_counts_from_the_call(clock: Clock) -> None:
    pipe, note = TimedPipeline(clock, 1.0), Note()
    callbacks = bind(pipe, Interrupt(deadline=4.0), note)
    for _ in range(3):
        clock.now += 100
        pipe("x", num_inference_steps=STEPS, **callbacks)
    assert note.steps == 3 * 4


def test_one_callback_in_two_runs_at_once(clock: Clock) -> None:
    """A run inside another: each has its own steps to judge by."""
    stop = Interrupt(deadline=9.0)
    outer, inner = TimedPipeline(clock, 1.0), TimedPipeline(clock, 0.25)

    class Within(Callback):
        def on_step_end(self, step: Step) -> None:
            if step.index == 1:
                inner("x", num_inference_steps=4, **bind(inner, stop))

    steps, _ = run(outer, stop, Within())
    # 1, 1, then one of 2 s with the inner run in it, by which the next three are judged.
    assert steps == 8


@pytest.mark.parametrize("deadline", [0, -1, float("nan"), float("inf")])
def test_deadlines_that_are_none(deadline: float) -> None:
    with pytest.raises(ValueError, match="deadline must be above 0 seconds and finite"):
        Interrupt(deadline=deadline)


@pytest.mark.parametrize("deadline", ["3", True, [3]])
def test_deadlines_that_are_no_numbers(deadline: Any) -> None:
    with pytest.raises(TypeError, match="deadline must be a number of seconds"):
        Interrupt(deadline=deadline)


# --- pipelines


def test_class_that_cannot_be_stopped_is_refused_at_bind() -> None:
    left_out = ("interrupt", "__dict__", "__weakref__")
    members = {name: member for name, member in vars(ToyPipeline).items() if name not in left_out}
    unknown = type("ToyPipeline", (), {**members, "unicb_facts": None})()
    facts = PipelineFacts(source="here", denoisers=("transformer",))
    no_such_model = type("ToyPipeline", (), {**members, "unicb_facts": facts})()
    for pipe in (unknown, no_such_model):
        with pytest.raises(UnsupportedPipelineError, match="cannot be interrupted"):
            bind(pipe, Interrupt(3))
        with pytest.raises(UnsupportedPipelineError, match="cannot be interrupted"):
            bind(pipe).interrupt()
        with pytest.raises(UnsupportedPipelineError, match="cannot be interrupted"):
            bind(pipe, on_sigint="interrupt")
        assert bind(pipe).cancel() is True


def test_class_whose_loop_cannot_go_on_from_a_stop_is_refused_with_the_reason() -> None:
    """Tokens that are masked until the last step, for example, are none that a decoder knows."""
    facts = PipelineFacts(
        source="here", denoisers=("unet",), unstoppable="cannot decode tokens that are masked"
    )
    pipe = type("Masking", (ToyPipeline,), {"unicb_facts": facts})()
    reason = r"Masking cannot be interrupted: it cannot decode tokens that are masked\. cancel\(\)"
    with pytest.raises(UnsupportedPipelineError, match=reason):
        bind(pipe, Interrupt(3))
    with pytest.raises(UnsupportedPipelineError, match=reason):
        bind(pipe).interrupt()
    with pytest.raises(UnsupportedPipelineError, match=reason):
        bind(pipe, on_sigint="interrupt")
    assert bind(pipe).cancel() is True
