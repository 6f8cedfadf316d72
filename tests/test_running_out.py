"""Loops that read no interrupt flag: once stopped, they run out with nothing to do."""

from __future__ import annotations

import copy
import gc
from collections import OrderedDict
from typing import Any

import loops
import numpy as np
import pytest
from stop_helpers import InThread, hooked

from unicb import (
    Callback,
    CFGCutoff,
    GenerationCancelled,
    Interrupt,
    PipelineFacts,
    Run,
    Step,
    bind,
)
from unicb.latents.denoised import DenoisedEstimate
from unicb.pipelines.stoppable import reads_flag
from unicb.testing._base import Checks
from unicb_numpy.harness import harness
from unicb_numpy.ops import StrictTensor
from unicb_numpy.pipelines import ToyPipeline, ToyScheduler

STEPS = 5


class Output(OrderedDict[str, Any]):
    """As the frameworks' schedulers return it: a mapping and its attributes."""

    def __init__(self, **items: Any) -> None:
        super().__init__(items)
        vars(self).update(items)


class Tuple(ToyScheduler):
    """Its step gives two tensors, the second of which the loop decodes."""

    def step(self, noise: Any, timestep: Any, sample: Any) -> Any:  # type: ignore[override]
        stepped = super().step(noise, timestep, sample)
        return stepped, StrictTensor(stepped.data * 2)


class Dict(Tuple):
    def step(self, noise: Any, timestep: Any, sample: Any) -> Any:  # type: ignore[override]
        stepped, doubled = super().step(noise, timestep, sample)
        return Output(prev_sample=stepped, pred_original_sample=doubled)


class Batch(loops.LoopPipeline):
    """One call of a doubled batch; ``advance`` is what the subclasses do otherwise."""

    unicb_facts = ToyPipeline.unicb_facts

    def advance(self, noise_pred: Any, t: Any, latents: Any) -> Any:
        return self.scheduler.step(noise_pred, t, latents)

    def predict(self, i: int, t: Any, latents: Any, positive: Any, negative: Any) -> Any:
        embeds = loops.both(negative, positive)
        noise_pred = self.unet(loops.both(latents, latents), t, encoder_hidden_states=embeds)
        noise_pred_uncond, noise_pred_text = loops.ops.chunk(noise_pred, 2)
        return loops.guided(noise_pred_uncond, noise_pred_text, self.guidance_scale)

    def __call__(  # type: ignore[override]
        self,
        prompts: list[str],
        steps: int = STEPS,
        guidance_scale: float = 5.0,
        callback_on_step_end: Any = None,
        callback_on_step_end_tensor_inputs: Any = ("latents",),
    ) -> Any:
        latents, positive, negative, timesteps = self.start(prompts, steps, guidance_scale)
        for i, t in enumerate(timesteps):
            noise_pred = self.predict(i, t, latents, positive, negative)
            latents = self.advance(noise_pred, t, latents)
            if callback_on_step_end is not None:
                callback_outputs = callback_on_step_end(self, i, t, {"latents": latents})
                latents = callback_outputs.pop("latents")
        return latents.data


class TupleSteps(Batch):
    def advance(self, noise_pred: Any, t: Any, latents: Any) -> Any:
        latents, self.doubled = self.scheduler.step(noise_pred, t, latents)
        return latents

    def start(self, *args: Any) -> Any:
        if type(self.scheduler) is not Tuple:
            self.scheduler = Tuple()
        return super().start(*args)


class DictSteps(Batch):
    def advance(self, noise_pred: Any, t: Any, latents: Any) -> Any:
        out = self.scheduler.step(noise=noise_pred, timestep=t, sample=latents)
        self.doubled = out.pred_original_sample
        return out["prev_sample"]

    def start(self, *args: Any) -> Any:
        if type(self.scheduler) is not Dict:
            self.scheduler = Dict()
        return super().start(*args)


class CopiedScheduler(Batch):
    """Steps with a copy of its scheduler, which it makes in its loop."""

    def advance(self, noise_pred: Any, t: Any, latents: Any) -> Any:
        return copy.deepcopy(self.scheduler).step(noise_pred, t, latents)


class ShallowCopy(Batch):
    def advance(self, noise_pred: Any, t: Any, latents: Any) -> Any:
        return copy.copy(self.scheduler).step(noise_pred, t, latents)


class OwnStep(Batch):
    """Steps without a scheduler."""

    def advance(self, noise_pred: Any, t: Any, latents: Any) -> Any:
        return StrictTensor(latents.data - 0.2 * noise_pred.data)


class Switched(loops.Switched):
    unicb_facts = PipelineFacts(source="here", denoisers=("unet",), cfg="switch")


class LocalFlag(loops.LocalFlag):
    unicb_facts = PipelineFacts(source="here", denoisers=("unet",), cfg="calls")


class LetsGo(loops.ConditionalFirst):
    """Lets go at once of the dict that it gets back."""

    unicb_facts = PipelineFacts(
        source="here", denoisers=("unet",), order=("conditional", "unconditional")
    )


KINDS = [
    Batch,
    TupleSteps,
    DictSteps,
    CopiedScheduler,
    ShallowCopy,
    OwnStep,
    Switched,
    LocalFlag,
    LetsGo,
]
CALLS = {Switched: 2, LocalFlag: 2}


class Spying(Checks):
    harness = harness


class Note(Callback):
    tensors = ("latents",)

    def __init__(self) -> None:
        self.latents: list[Any] = []
        self.denoised: list[Any] = []
        self.ends = 0

    def on_step_end(self, step: Step) -> None:
        self.latents.append(step.ops.to_numpy(step["latents"]))
        self.kind = DenoisedEstimate.kind_of(step.pipeline.scheduler) or "none"
        x0 = step.denoised()
        self.denoised.append(None if x0 is None else step.ops.to_numpy(x0))

    def picture(self, index: int, picture: str) -> Any:
        """What a run that is interrupted after this step is to give."""
        if picture == "latents":
            return self.latents[index]
        x0 = self.denoised[index]
        assert (x0 is None) == (self.kind == "none")
        return self.latents[index] if x0 is None else x0

    def on_run_end(self, run: Run) -> None:
        self.ends += 1


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def unflagged(request: pytest.FixtureRequest) -> Any:
    return request.param()


def test_they_are_told_from_their_own_code(unflagged: Any) -> None:
    """Though the toy's, which they override, reads the flag."""
    assert not reads_flag(type(unflagged))
    assert reads_flag(ToyPipeline)


def test_class_that_calls_the_loop_that_it_overrides() -> None:
    class Wraps(ToyPipeline):
        def __call__(self, prompt: Any, callback_on_step_end: Any = None, **kwargs: Any) -> Any:  # type: ignore[override]
            return super().__call__(prompt, callback_on_step_end=callback_on_step_end, **kwargs)

    class Names(ToyPipeline):
        def __call__(self, prompt: Any, callback_on_step_end: Any = None, **kwargs: Any) -> Any:  # type: ignore[override]
            return ToyPipeline.__call__(
                self, prompt, callback_on_step_end=callback_on_step_end, **kwargs
            )

    assert reads_flag(Wraps)
    assert reads_flag(Names)


@pytest.mark.parametrize("picture", ["denoised", "latents"])
@pytest.mark.parametrize("index", [1, 2, STEPS - 2, STEPS - 1])
def test_stopped_loop_computes_nothing_more(unflagged: Any, index: int, picture: Any) -> None:
    note = Note()
    plain = unflagged(["x", "y"])
    callbacks = bind(unflagged, note, Interrupt(index, picture=picture))
    with Spying().spied(unflagged) as rows:
        out = unflagged(["x", "y"], **callbacks)
    assert len(rows) == (index + 1) * CALLS.get(type(unflagged), 1)
    assert len(note.latents) == index + 1
    assert np.array_equal(out, note.picture(index, picture))
    assert note.ends == 1
    assert (callbacks.state, callbacks.step) == ("interrupted", index)
    gc.collect()
    assert hooked(unflagged) == []
    assert np.array_equal(unflagged(["x", "y"]), plain)
    note.latents.clear()
    assert np.array_equal(unflagged(["x", "y"], **bind(unflagged, note)), plain)
    assert len(note.latents) == STEPS


def test_stopped_after_its_first_step(unflagged: Any) -> None:
    """Nothing is kept of that step, as unicb hears of the run at its end: one more is computed, and
    the latents are those of the first."""
    note = Note()
    plain = unflagged(["x"])
    with Spying().spied(unflagged) as rows:
        out = unflagged(["x"], **bind(unflagged, note, Interrupt(0)))
    assert len(rows) == CALLS.get(type(unflagged), 1) + 1
    assert len(note.latents) == 1
    assert np.array_equal(out, note.latents[0])
    gc.collect()
    assert hooked(unflagged) == []
    assert np.array_equal(unflagged(["x"]), plain)


@pytest.mark.parametrize("kind", [Batch, Switched, LocalFlag])
@pytest.mark.parametrize(("cutoff", "index"), [(0, 1), (1, 1), (1, 3), (2, 1), (0, 0)])
def test_with_guidance_cut(kind: Any, cutoff: int, index: int) -> None:
    """In the same step, before and after it."""
    pipe, note = kind(), Note()
    plain = pipe(["x", "y"])
    cut, whole = CFGCutoff(cutoff_step_index=cutoff), Note()
    stop = Interrupt(index, picture="latents")
    uncut = pipe(["x", "y"], **bind(pipe, cut, whole))
    assert not np.array_equal(uncut, plain)
    for callbacks in ([cut, note, stop], [stop, note, cut]):
        note.latents.clear()
        out = pipe(["x", "y"], **bind(pipe, *callbacks))
        assert len(note.latents) == index + 1
        assert np.array_equal(out, note.latents[-1])
        assert np.array_equal(out, whole.latents[index])
        assert hooked(pipe) == []
    assert np.array_equal(pipe(["x", "y"]), plain)


@pytest.mark.parametrize("picture", ["denoised", "latents"])
def test_interrupted_from_outside(unflagged: Any, picture: Any) -> None:
    def stop(pipe: Any, index: int, timestep: Any, tensors: Any) -> None:
        if index == 2:
            assert callbacks.interrupt(picture=picture) is True
            assert callbacks.interrupt(picture=picture) is True

    note = Note()
    callbacks = bind(unflagged, note, stop, tensor_inputs=["latents"])
    with Spying().spied(unflagged) as rows:
        out = unflagged(["x"], **callbacks)
    assert len(rows) == 3 * CALLS.get(type(unflagged), 1)
    assert np.array_equal(out, note.picture(2, picture))
    assert callbacks.interrupt() is False


def test_cancelled(unflagged: Any) -> None:
    plain = unflagged(["x"])

    class Cancel(Callback):
        def on_step_end(self, step: Step) -> None:
            callbacks.cancel()

    callbacks = bind(unflagged, Cancel())
    with pytest.raises(GenerationCancelled, match="after step 0"):
        unflagged(["x"], **callbacks)
    assert hooked(unflagged) == []
    assert np.array_equal(unflagged(["x"]), plain)


def test_second_output_of_the_scheduler_is_that_of_the_last_step() -> None:
    """LatentConsistencyModelPipeline decodes it."""
    for pipe in (TupleSteps(), DictSteps()):
        out = pipe(["x"], **bind(pipe, Interrupt(2)))
        assert np.array_equal(pipe.doubled.data, 2 * out)


def test_loop_that_fails_while_it_runs_out() -> None:
    pipe = Batch()
    plain = pipe(["x"])

    class Faulty(Batch):
        steps = 0

        def advance(self, noise_pred: Any, t: Any, latents: Any) -> Any:
            self.steps += 1
            return 1 / (4 - self.steps) and super().advance(noise_pred, t, latents)

    faulty = Faulty()
    callbacks = bind(faulty, CFGCutoff(cutoff_step_index=0), Interrupt(1))
    kept = None
    try:
        faulty(["x"], **callbacks)
    except ZeroDivisionError as error:
        kept = error
    assert kept is not None
    # The loop's frame is alive; who asks learns what became of the run, and takes the rest away.
    assert callbacks.state == "interrupted"
    assert hooked(faulty) == []
    faulty.steps = -100
    assert np.array_equal(faulty(["x"]), plain)


def test_another_run_of_the_models_meanwhile() -> None:
    """Answers are for the stopped loop alone; who calls its models from elsewhere gets his own."""
    other, alike = Batch(), []

    class Between(Batch):
        steps = 0

        def advance(self, noise_pred: Any, t: Any, latents: Any) -> Any:
            self.steps += 1
            if self.steps == 4:
                call = InThread(lambda: other(["z"]))
                call.join()
                alike.append(np.array_equal(call.result, plain))
            return super().advance(noise_pred, t, latents)

    between, note = Between(), Note()
    other.unet = between.unet
    plain = other(["z"])
    out = between(["x"], **bind(between, note, Interrupt(1)))
    assert alike == [True]
    assert np.array_equal(out, note.picture(1, "denoised"))


class Toggles(Batch):
    """Leaves guidance out of every other step."""

    def predict(self, i: int, t: Any, latents: Any, positive: Any, negative: Any) -> Any:
        if i % 2:
            return self.unet(latents, t, encoder_hidden_states=positive)
        return super().predict(i, t, latents, positive, negative)


@pytest.mark.parametrize("prompts", [1, 2])
@pytest.mark.parametrize("index", [1, 2, 3])
def test_rows_change_from_step_to_step(index: int, prompts: int) -> None:
    """An answer for the rows of one step is none for those of another: it is computed once more,
    where there is none for as many rows."""
    pipe, note = Toggles(), Note()
    texts = ["x", "y"][:prompts]
    plain = pipe(texts)
    with Spying().spied(pipe) as rows:
        out = pipe(texts, **bind(pipe, note, Interrupt(index)))
    assert np.array_equal(out, note.picture(index, "denoised"))
    assert len(rows) == max(index + 1, 3)
    gc.collect()
    assert hooked(pipe) == []
    assert np.array_equal(pipe(texts), plain)


# --- several loops in one call


class TwoPasses(loops.TwoPasses):
    pass


class Passes(Batch):
    """Each of its loops is in a method's frame of its own, and so a run of its own: to stop one is
    not to stop the next. No known class is like that."""

    def a_pass(self, latents: Any, embeds: Any, timesteps: Any, callback_on_step_end: Any) -> Any:
        for i, t in enumerate(timesteps):
            noise_pred = self.unet(loops.both(latents, latents), t, encoder_hidden_states=embeds)
            noise_pred_uncond, noise_pred_text = loops.ops.chunk(noise_pred, 2)
            noise_pred = loops.guided(noise_pred_uncond, noise_pred_text, self.guidance_scale)
            latents = self.scheduler.step(noise_pred, t, latents)
            if callback_on_step_end is not None:
                callback_outputs = callback_on_step_end(self, i, t, {"latents": latents})
                latents = callback_outputs.pop("latents")
        return latents

    def __call__(  # type: ignore[override]
        self,
        prompts: list[str],
        steps: int = STEPS,
        guidance_scale: float = 5.0,
        callback_on_step_end: Any = None,
        callback_on_step_end_tensor_inputs: Any = ("latents",),
    ) -> Any:
        latents, positive, negative, timesteps = self.start(prompts, steps, guidance_scale)
        for _ in range(2):
            embeds = loops.both(negative, positive)
            latents = self.a_pass(latents, embeds, timesteps, callback_on_step_end)
        return latents.data


@pytest.mark.parametrize("index", [1, STEPS - 1])
def test_stop_in_the_first_of_two_loops(index: int) -> None:
    """The second computes nothing either."""
    pipe, note = TwoPasses(), Note()
    plain = pipe(["x"])
    with Spying().spied(pipe) as rows:
        out = pipe(["x"], **bind(pipe, note, Interrupt(index)))
    assert len(rows) == index + 1
    assert np.array_equal(out, note.picture(index, "denoised"))
    gc.collect()
    assert hooked(pipe) == []
    assert np.array_equal(pipe(["x"]), plain)


@pytest.mark.parametrize("kind", [TwoPasses, Passes])
def test_stop_in_the_second_of_two_loops(kind: Any) -> None:
    pipe, note = kind(), Note()

    def stop(*_: Any) -> None:
        if len(note.latents) == STEPS + 2:
            callbacks.interrupt()

    callbacks = bind(pipe, note, stop, tensor_inputs=["latents"])
    with Spying().spied(pipe) as rows:
        out = pipe(["x"], **callbacks)
    assert len(rows) == STEPS + 2
    assert np.array_equal(out, note.picture(STEPS + 1, "denoised"))
    assert callbacks.state == "interrupted"
    gc.collect()
    assert hooked(pipe) == []
