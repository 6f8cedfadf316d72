"""Pipelines whose loops call no step-end callback: their scheduler's calls show their steps."""

from __future__ import annotations

import asyncio
import inspect
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from looking import Look
from scheduled import (
    BarePipeline,
    DoubledPipeline,
    EnsemblePipeline,
    ScheduledPipeline,
    Scheduler,
    TupledPipeline,
)
from stop_helpers import WAIT, BlockUNet

from unicb import (
    Callback,
    CFGCutoff,
    GenerationCancelled,
    GuidanceInterval,
    GuidanceSchedule,
    Interrupt,
    LatentFormat,
    LatentsNotFiniteError,
    NaNGuard,
    Preview,
    PreviewFrame,
    Progress,
    PromptSchedule,
    Result,
    Step,
    StepTimer,
    Trajectory,
    UnsupportedPipelineError,
    bind,
    run_async,
    stream,
)
from unicb_numpy.ops import StrictTensor
from unicb_numpy.pipelines import ToyPipeline, ToyUNet

FORMAT = LatentFormat(
    name="test",
    latent_channels=4,
    spatial_scale=8,
    output_range=(-4.0, 4.0),
    factors=((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.0, 0.0, 0.0)),
    bias=(0.0, 0.0, 0.0),
    source="this file",
)


class Half(Callback):
    tensors = ("latents",)

    def on_step_end(self, step: Step) -> None:
        step["latents"] = step["latents"] * 0.5


KINDS = [
    ScheduledPipeline(),
    ScheduledPipeline(made="object"),
    ScheduledPipeline(on_device=True),
    TupledPipeline(made="tuple"),
    TupledPipeline(made="mapping"),
    BarePipeline(made="bare"),
]


@pytest.mark.parametrize("pipe", KINDS, ids=lambda pipe: f"{type(pipe).__name__}")
def test_run_is_unchanged_and_every_step_is_seen(pipe: Any) -> None:
    plain, look = pipe("a cat"), Look()
    before = {*vars(pipe.scheduler)}
    callbacks = bind(pipe, look, StepTimer())
    assert np.array_equal(callbacks("a cat"), plain)
    assert look.seen == [(i, 10) for i in range(10)]
    assert np.array_equal(look.latents[-1], plain)
    assert (callbacks.state, callbacks.step) == ("finished", 9)
    assert ({*vars(pipe.scheduler)}, type(pipe.scheduler)) == (before, Scheduler)
    assert np.array_equal(pipe("a cat"), plain)


@pytest.mark.parametrize("pipe", KINDS, ids=lambda pipe: f"{type(pipe).__name__}")
def test_edit_reaches_the_loop(pipe: Any) -> None:
    class Edited(Scheduler):
        def step(self, *args: Any, **kwargs: Any) -> Any:
            out = super().step(*args, **kwargs)
            made = out[0] if isinstance(out, tuple) else getattr(out, "prev_sample", out)
            made.data[...] *= 0.5
            return out

    own = pipe.scheduler
    pipe.scheduler = Edited(made=own.made, on_device=own.on_device)
    expected = pipe("a cat")
    pipe.scheduler = own
    assert np.array_equal(bind(pipe, Half())("a cat"), expected)
    assert not np.array_equal(pipe("a cat"), expected)


def test_part_that_the_loop_takes() -> None:
    """With one step it takes another part of the step's result: that is what callbacks get."""
    pipe, look = TupledPipeline(made="tuple"), Look()
    made = bind(pipe, look)("a cat", num_inference_steps=1)
    assert np.array_equal(look.latents[0], made)
    assert not made.any()
    assert look.seen == [(0, 1)]

    class Write(Callback):
        tensors = ("latents",)

        def on_step_end(self, step: Step) -> None:
            step["latents"] = step["latents"] + 3.0

    assert (bind(pipe, Write())("a cat", num_inference_steps=1) == 3).all()


def test_plain_function_and_no_number_is_read_from_the_device() -> None:
    pipe, seen = ScheduledPipeline(on_device=True), []

    def look(pipeline: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        assert pipeline is pipe
        seen.append((index, timestep.value, [*tensors]))
        return {"latents": tensors["latents"] * 0.5}

    made = bind(pipe, look)("a cat")
    assert [index for index, _, _ in seen] == [*range(10)]
    assert seen[0][1:] == (1000.0, ["latents"])
    assert np.array_equal(made, bind(ScheduledPipeline(), Half())("a cat"))


def test_half_steps_are_counted_as_the_frameworks_do() -> None:
    pipe, look = ScheduledPipeline(order=2), Look()
    bind(pipe, look)("a cat", num_inference_steps=4)
    assert look.seen == [(i, 7) for i in range(7)]


def test_slice_of_the_timesteps() -> None:
    """As in image to image: the count is of what the loop goes over."""
    pipe, look = ScheduledPipeline(), Look()
    pipe.skipped = 3
    bind(pipe, look)("a cat")
    assert look.seen == [(i, 7) for i in range(7)]
    rows = rows_of(pipe)
    pipe("a cat")
    rows.clear()
    bind(pipe, CFGCutoff(0.5))("a cat")
    assert rows == [2, 2, 2, 2, 1, 1, 1]  # int(7 * 0.5) is the last guided one


def test_several_passes_are_several_runs() -> None:
    pipe, look = EnsemblePipeline(), Look()
    plain = pipe("a cat")
    callbacks = bind(pipe, look)
    assert np.array_equal(callbacks("a cat"), plain)
    assert look.seen == [(i, 4) for i in range(4)] * 3
    assert len({id(run) for run in look.runs}) == 3
    assert callbacks.state == "finished"


def rows_of(pipe: Any) -> list[int]:
    """A list that fills with the rows that the denoiser is called with."""
    rows: list[int] = []

    class Counted(ToyUNet):
        def forward(self, sample: StrictTensor, *args: Any, **kwargs: Any) -> StrictTensor:
            rows.append(sample.shape[0])
            return super().forward(sample, *args, **kwargs)

    pipe.unet = Counted()
    return rows


def reference(pipe: Any, after: int, prompt: Any, **more: Any) -> Any:
    """A run in which both halves are computed, and the unconditional one is overwritten."""

    class Overwritten(ToyUNet):
        calls = 0

        def forward(self, sample: StrictTensor, *args: Any, **kwargs: Any) -> StrictTensor:
            out, self.calls = super().forward(sample, *args, **kwargs), self.calls + 1
            if self.calls > after + 1:
                half = len(out.data) // 2
                out.data[:half] = out.data[half:]
            return out

    own, pipe.unet = pipe.unet, Overwritten()
    try:
        return pipe(prompt, **more)
    finally:
        pipe.unet = own


@pytest.mark.parametrize("order", [1, 2])
def test_cut_is_exact_where_the_loop_is_seen_to_guide(order: int) -> None:
    pipe = ScheduledPipeline(order)
    rows, after = rows_of(pipe), 3
    expected, full = reference(pipe, after, ["a cat", "a dog"]), pipe(["a cat", "a dog"])
    rows.clear()
    made = bind(pipe, CFGCutoff(cutoff_step_index=after))(["a cat", "a dog"])
    assert np.abs(made - expected).max() <= 1e-5 * expected.std()
    assert np.abs(full - expected).max() > 1e-3 * expected.std()
    steps = 10 if order == 1 else 19
    assert rows == [4] * (after + 1) + [2] * (steps - after - 1)
    assert np.array_equal(pipe(["a cat", "a dog"]), full)


@pytest.mark.parametrize("after", [0, 3])
def test_rows_that_the_loop_has_twice(after: int) -> None:
    """Callbacks get each once; guidance is cut all the same."""
    pipe, look = DoubledPipeline(), Look()
    plain = pipe(["a cat", "a dog"])
    assert np.array_equal(bind(pipe, look)(["a cat", "a dog"]), plain)
    assert np.array_equal(look.latents[-1], plain[:2])
    rows = rows_of(pipe)
    expected = reference(pipe, after, ["a cat", "a dog"])
    rows.clear()
    made = bind(pipe, CFGCutoff(cutoff_step_index=after))(["a cat", "a dog"])
    assert np.abs(made - expected).max() <= 1e-5 * expected.std()
    assert rows == [4] * (after + 1) + [2] * (9 - after)
    edited = bind(pipe, Half())(["a cat", "a dog"])
    assert np.array_equal(edited[:2], edited[2:])
    assert np.abs(edited).max() < np.abs(plain).max()
    unguided = Look()
    assert len(bind(pipe, unguided, CFGCutoff(0.4))("a cat", guidance_scale=1.0)) == 1
    assert np.array_equal(unguided.latents[-1], pipe("a cat", guidance_scale=1.0))


def test_guidance_interval_from_the_first_step() -> None:
    pipe = ScheduledPipeline()
    rows, look = rows_of(pipe), Look()
    bind(pipe, GuidanceInterval(0.3, 0.6), look)("a cat")
    # The first is computed whole, and seen; it is made anew without guidance.
    assert rows == [2, 1, 1, 2, 2, 2, 2, 1, 1, 1]
    without = Look()
    bind(pipe, without)("a cat", guidance_scale=1.0)
    for guided, plain in zip(look.latents[:3], without.latents[:3], strict=True):
        assert np.abs(guided - plain).max() <= 1e-5 * plain.std()
    assert np.abs(look.latents[4] - without.latents[4]).max() > 1e-3


def test_loop_that_does_not_guide_as_its_code_tells() -> None:
    """It is seen, and the run ends with the reason."""

    class Odd(ScheduledPipeline):
        def __call__(self, prompt: str) -> Any:
            latents, embeds = self.begin(prompt, 0, 5.0)
            timesteps = self.scheduler.set_timesteps(10)
            for t in timesteps:
                both = StrictTensor(np.concatenate([latents.data] * 2))
                noise_pred = self.unet(both, t, encoder_hidden_states=embeds)
                noise_pred_uncond, noise_pred_text = np.split(noise_pred.data, 2)
                noise_pred = StrictTensor(np.abs(noise_pred_uncond) + noise_pred_text**2)
                latents = self.scheduler.step(noise_pred, t, latents).prev_sample
            return latents.data

    pipe = Odd()
    plain = pipe("a cat")
    with pytest.raises(UnsupportedPipelineError, match="what was not seen to be u"):
        bind(pipe, CFGCutoff(0.4))("a cat")
    assert np.array_equal(pipe("a cat"), plain)


def test_schedule_whose_combination_is_not_known_is_refused() -> None:
    with pytest.raises(UnsupportedPipelineError, match="not known to be u"):
        bind(ScheduledPipeline(), GuidanceSchedule([(0.0, 5.0), (0.5, 2.0)]))


@pytest.mark.parametrize("picture", ["denoised", "latents"])
def test_interrupt(picture: Any) -> None:
    pipe, look = ScheduledPipeline(), Look()

    class Stop(Callback):
        def on_step_end(self, step: Step) -> None:
            if step.index == 3:
                step.interrupt(picture=picture)

    rows = rows_of(pipe)
    callbacks = bind(pipe, look, Stop())
    made = callbacks("a cat")
    assert (callbacks.state, callbacks.step) == ("interrupted", 3)
    assert len(look.seen) == 4
    assert len(rows) == 4  # the rest of the loop computes nothing
    assert pipe.scheduler.calls == 4
    if picture == "latents":
        assert np.array_equal(made, look.latents[-1])
    assert np.isfinite(made).all()
    plain = ScheduledPipeline()("a cat")
    assert np.array_equal(pipe("a cat"), plain)


def test_interrupt_in_several_passes_ends_all() -> None:
    pipe, look = EnsemblePipeline(), Look()
    callbacks = bind(pipe, look, Interrupt(0))
    callbacks("a cat")
    assert callbacks.state == "interrupted"
    assert look.seen == [(0, 4)]


def test_cancel() -> None:
    pipe = ScheduledPipeline()

    class Cancel(Callback):
        def on_step_end(self, step: Step) -> None:
            if step.index == 2:
                callbacks.cancel()

    plain = pipe("a cat")
    callbacks = bind(pipe, Cancel())
    with pytest.raises(GenerationCancelled) as caught:
        callbacks("a cat")
    assert (caught.value.step, callbacks.state) == (2, "cancelled")
    assert caught.value.latents.shape == (1, 4, 8, 8)
    assert np.array_equal(pipe("a cat"), plain)


def test_cancel_at_once() -> None:
    """From another thread, in the middle of a step: no further block is computed."""
    pipe = ScheduledPipeline()
    pipe.unet = unet = BlockUNet()
    plain = pipe("a cat")
    callbacks = bind(pipe)

    def on_block(name: str) -> None:
        if len(unet.computed) == 5 * 2 + 2:
            thread = threading.Thread(target=callbacks.cancel, kwargs={"now": True})
            thread.start()
            thread.join(WAIT)

    unet.computed.clear()
    unet.on_block = on_block
    with pytest.raises(GenerationCancelled):
        callbacks("a cat")
    assert len(unet.computed) == 5 * 2 + 2
    unet.on_block = lambda name: None
    assert np.array_equal(pipe("a cat"), plain)


def test_failure_in_a_callback_leaves_nothing() -> None:
    class Fails(Callback):
        def on_step_end(self, step: Step) -> None:
            raise RuntimeError("no")

    pipe = ScheduledPipeline()
    plain, before = pipe("a cat"), {*vars(pipe.scheduler)}
    callbacks = bind(pipe, Fails())
    with pytest.raises(RuntimeError, match="no"):
        callbacks("a cat")
    assert (callbacks.state, {*vars(pipe.scheduler)}) == ("failed", before)
    assert type(pipe.scheduler) is Scheduler
    assert np.array_equal(pipe("a cat"), plain)


def test_failure_before_the_loop() -> None:
    pipe, look = ScheduledPipeline(), Look()
    with pytest.raises(TypeError):
        bind(pipe, look)("a cat", num_inference_steps="many")
    pipe("a cat")  # a plain call, which is not seen
    assert look.seen == []


def test_callbacks_that_come_with_it(tmp_path: Path) -> None:
    pipe = ScheduledPipeline()
    frames: list[PreviewFrame] = []
    plain = pipe("a cat")
    callbacks = bind(
        pipe,
        NaNGuard(),
        StepTimer(),
        Progress(),
        Trajectory(tmp_path / "run.npz"),
        Preview(frames, factors=FORMAT),
    )
    assert np.array_equal(callbacks("a cat"), plain)
    assert len(frames) == 10
    assert (tmp_path / "run.npz").exists()


def test_nan_guard_ends_the_run() -> None:
    class Breaks(Callback):
        tensors = ("latents",)

        def on_step_end(self, step: Step) -> None:
            step["latents"] = step["latents"] * float("nan")

    with pytest.raises(LatentsNotFiniteError):
        bind(ScheduledPipeline(), Breaks(), NaNGuard())("a cat")


def test_stream() -> None:
    pipe, look = ScheduledPipeline(), Look()
    plain = pipe("a cat")
    events = list(stream(pipe, "a cat", factors=FORMAT, backlog=10, callbacks=[look]))
    assert len(events) == 11
    assert isinstance(events[-1], Result)
    assert np.array_equal(events[-1].output, plain)
    assert len(look.seen) == 10


def test_run_async() -> None:
    pipe, look = ScheduledPipeline(), Look()
    plain = pipe("a cat")
    assert np.array_equal(asyncio.run(run_async(pipe, "a cat", [look])), plain)
    assert len(look.seen) == 10


def test_siblings_in_threads_are_seen_apart() -> None:
    """Two pipelines on one denoiser, each with a scheduler of its own."""
    pipes = [ScheduledPipeline(), ScheduledPipeline()]
    pipes[1].unet = pipes[0].unet
    looks, made = [Look(), Look()], dict[int, Any]()
    plain = pipes[0]("a cat")

    def work(number: int) -> None:
        made[number] = bind(pipes[number], looks[number])("a cat")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    for number, look in enumerate(looks):
        assert look.seen == [(i, 10) for i in range(10)]
        assert np.array_equal(made[number], plain)


def test_step_keeps_its_signature() -> None:
    """Pipelines look there whether it takes ``eta``."""
    found = []

    class Looks(ScheduledPipeline):
        def begin(self, *args: Any) -> Any:
            found.append([*inspect.signature(self.scheduler.step).parameters])
            return super().begin(*args)

    pipe = Looks()
    pipe("a cat")
    bind(pipe, Look())("a cat")
    assert found == [["model_output", "timestep", "sample", "eta"]] * 2


def test_steps_of_others_pass() -> None:
    """A callback's own call of another pipeline on the same scheduler's class, and of ``step``
    itself, are not the run's."""
    pipe, other, look = ScheduledPipeline(), ScheduledPipeline(), Look()
    plain = pipe("a cat")

    class Calls(Callback):
        tensors = ("latents",)

        def on_step_end(self, step: Step) -> None:
            x = step["latents"]
            pipe.scheduler.step(x, 0.0, x)
            other("a dog")

    made = bind(pipe, Calls(), look)("a cat")
    assert look.seen == [(i, 10) for i in range(10)]
    assert np.array_equal(made, plain)


def test_unpacking_says_what_to_write() -> None:
    pipe = ScheduledPipeline()
    callbacks = bind(pipe, Look())
    with pytest.raises(UnsupportedPipelineError, match=r"callbacks\(prompt, \.\.\.\)"):
        pipe("a cat", **callbacks)
    with pytest.raises(UnsupportedPipelineError, match=r"callbacks\(prompt, \.\.\.\)"):
        callbacks["callback_on_step_end"]
    assert callbacks  # a handle, whatever it unpacks to
    callbacks("a cat")


def test_other_tensors_are_refused() -> None:
    class Wants(Look):
        tensors = ("latents", "prompt_embeds")

    with pytest.raises(UnsupportedPipelineError, match=r"'prompt_embeds'.* offers: latents"):
        bind(ScheduledPipeline(), Wants())
    with pytest.raises(UnsupportedPipelineError, match="calls no callback, and takes nothing"):
        bind(ScheduledPipeline(), PromptSchedule([(0.0, "a cat"), (0.5, "a dog")]))


def test_scheduler_that_is_exchanged_in_the_middle() -> None:
    """Its steps are not seen; the call says so."""
    pipe = ScheduledPipeline()

    class Exchanges(Callback):
        def on_step_end(self, step: Step) -> None:
            if step.index == 2:
                new = Scheduler()
                new.set_timesteps(10)
                pipe.scheduler = new

    with pytest.warns(RuntimeWarning, match="after 3 of its 10 steps"):
        bind(pipe, Exchanges())("a cat")


def test_complete_calls_do_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bind(ScheduledPipeline(), Look())("a cat")
        bind(ScheduledPipeline(), Interrupt(0))("a cat")
        bind(EnsemblePipeline(), Look())("a cat")


def test_class_without_a_scheduler() -> None:
    pipe = ScheduledPipeline()
    pipe.scheduler = None  # type: ignore[assignment]
    with pytest.raises(UnsupportedPipelineError, match="no scheduler with a step"):
        bind(pipe, Look())


def test_class_that_wraps_the_call_of_its_base() -> None:
    class Wraps(ScheduledPipeline):
        def __call__(self, prompt: str) -> Any:  # type: ignore[override]
            return super().__call__(f"a picture of {prompt}")

    look = Look()
    made = bind(Wraps(), look)("a cat")
    assert np.array_equal(made, ScheduledPipeline()("a picture of a cat"))
    assert look.seen == [(i, 10) for i in range(10)]


def test_class_with_a_callback_is_told_by_that() -> None:
    pipe, look = ToyPipeline(), Look()
    callbacks = bind(pipe, look)
    assert len({**callbacks}) == 2
    callbacks("a cat")
    assert look.seen == [(i, 10) for i in range(10)]
