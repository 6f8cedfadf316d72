"""Loops that somebody wrote by hand, bound by their parts."""

from __future__ import annotations

import runpy
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scheduled import OPS, ScheduledPipeline, Scheduler
from stop_helpers import WAIT, BlockUNet
from test_without_callback import FORMAT, Half, Look, rows_of

from unicb import (
    Callback,
    CFGCutoff,
    GenerationCancelled,
    GuidanceInterval,
    Interrupt,
    Loop,
    PipelineBusyError,
    Preview,
    PreviewFrame,
    Step,
    UnsupportedPipelineError,
    bind,
)
from unicb_numpy.ops import StrictTensor
from unicb_numpy.pipelines import ToyUNet

SCALE = 5.0


def start() -> tuple[StrictTensor, StrictTensor]:
    latents, embeds = ScheduledPipeline().begin("a cat", 0, SCALE)
    return latents, embeds


def in_a_batch(unet: Any, scheduler: Any) -> Any:
    latents, embeds = start()
    scheduler.set_timesteps(10)
    for _, t in enumerate(scheduler.timesteps):
        both = unet(OPS.concat([latents, latents]), t, encoder_hidden_states=embeds)
        u, c = OPS.chunk(both, 2)
        latents = scheduler.step(u + (c - u) * SCALE, t, latents).prev_sample
    return latents.data


def in_two_calls(unet: Any, scheduler: Any) -> Any:
    latents, embeds = start()
    negative, positive = OPS.chunk(embeds, 2)
    timesteps, skipped = scheduler.set_timesteps(10), 2
    for t in timesteps[skipped:]:
        c = unet(latents, t, encoder_hidden_states=positive)
        u = unet(latents, t, encoder_hidden_states=negative)
        latents = scheduler.step(u + (c - u) * SCALE, t, latents).prev_sample
    return latents.data


def parts(**more: Any) -> tuple[ToyUNet, Scheduler, Loop]:
    unet, scheduler = ToyUNet(), Scheduler()
    return unet, scheduler, Loop(unet=unet, scheduler=scheduler, **more)


def test_steps_are_seen_and_nothing_changes() -> None:
    unet, scheduler, loop = parts()
    plain, look = in_a_batch(unet, scheduler), Look()
    with bind(loop, look) as callbacks:
        made = in_a_batch(unet, scheduler)
    assert np.array_equal(made, plain)
    assert look.seen == [(i, 10) for i in range(10)]
    assert np.array_equal(look.latents[-1], plain)
    assert (callbacks.state, type(scheduler)) == ("finished", Scheduler)
    assert np.array_equal(in_a_batch(unet, scheduler), plain)
    assert len(look.seen) == 10  # of which nothing was heard


def test_loop_in_the_block_itself() -> None:
    unet, scheduler, loop = parts()
    look = Look()
    latents, embeds = start()
    _, positive = OPS.chunk(embeds, 2)
    timesteps = scheduler.set_timesteps(6)[2:]
    with bind(loop, look, Half()):
        for t in timesteps:
            noise = unet(latents, t, encoder_hidden_states=positive)
            latents = scheduler.step(noise, t, latents).prev_sample
    assert look.seen == [(i, 4) for i in range(4)]
    assert np.array_equal(latents.data, look.latents[-1] * 0.5)


@pytest.mark.parametrize("made", ["mapping", "object", "tuple", "bare"])
def test_whatever_the_scheduler_returns(made: str) -> None:
    unet, scheduler = ToyUNet(), Scheduler(made=made)
    latents, embeds = start()
    _, positive = OPS.chunk(embeds, 2)
    timesteps = scheduler.set_timesteps(4)
    with bind(Loop(unet=unet, scheduler=scheduler), Half()):
        for t in timesteps:
            out = scheduler.step(unet(latents, t, encoder_hidden_states=positive), t, latents)
            latents = out[0] if made == "tuple" else getattr(out, "prev_sample", out)
    own, expected = Scheduler(), start()[0]
    for t in own.set_timesteps(4):
        out = own.step(unet(expected, t, encoder_hidden_states=positive), t, expected)
        expected = out["prev_sample"] * 0.5
    assert np.array_equal(latents.data, expected.data)


class Overwritten(ToyUNet):
    """Of its second half, or of its second call of two, the first takes over after some calls."""

    def __init__(self, after: int, calls: bool) -> None:
        self.after, self.in_calls, self.done = after, calls, 0
        self.kept: Any = None

    def forward(self, sample: StrictTensor, *args: Any, **kwargs: Any) -> StrictTensor:
        out, self.done = super().forward(sample, *args, **kwargs), self.done + 1
        if self.in_calls:
            if self.done % 2:
                self.kept = out
            elif self.done > 2 * (self.after + 1):
                return self.kept  # type: ignore[no-any-return]
        elif self.done > self.after + 1:
            half = len(out.data) // 2
            out.data[:half] = out.data[half:]
        return out


@pytest.mark.parametrize("after", [0, 3])
@pytest.mark.parametrize("guidance", ["batch", "calls"])
def test_cut_is_exact(guidance: Any, after: int) -> None:
    run = in_a_batch if guidance == "batch" else in_two_calls
    unet, scheduler, loop = parts(guidance=guidance)
    holder: Any = ScheduledPipeline()
    rows = rows_of(holder)
    unet = loop.unet = holder.unet  # type: ignore[attr-defined]
    expected = run(Overwritten(after, guidance == "calls"), scheduler)
    full = run(unet, scheduler)
    rows.clear()
    with bind(loop, CFGCutoff(cutoff_step_index=after)):
        made = run(unet, scheduler)
    assert np.abs(made - expected).max() <= 1e-5 * expected.std()
    assert np.abs(full - expected).max() > 1e-3 * expected.std()
    if guidance == "batch":
        assert rows == [2] * (after + 1) + [1] * (9 - after)
    else:
        assert rows == [1] * (2 * (after + 1) + 7 - after)


def test_interval_from_the_first_step() -> None:
    unet, scheduler, loop = parts(guidance="batch")
    look, without = Look(), Look()
    with bind(loop, without):
        in_a_batch(Overwritten(-1, calls=False), scheduler)
    with bind(loop, GuidanceInterval(0.5, 0.8), look):
        in_a_batch(unet, scheduler)
    for ours, theirs in zip(look.latents[:5], without.latents, strict=False):
        assert np.abs(ours - theirs).max() <= 1e-5 * theirs.std()
    assert np.abs(look.latents[6] - without.latents[6]).max() > 1e-3


@pytest.mark.parametrize(("said", "run"), [("batch", in_two_calls), ("calls", in_a_batch)])
def test_guidance_that_is_not_as_it_was_said(said: Any, run: Any) -> None:
    unet, scheduler, loop = parts(guidance=said)
    plain = run(unet, scheduler)
    with (
        pytest.raises(UnsupportedPipelineError, match="guidance should come in"),
        bind(loop, CFGCutoff(0.4)),
    ):
        run(unet, scheduler)
    assert np.array_equal(run(unet, scheduler), plain)


def test_guidance_that_was_not_said() -> None:
    with pytest.raises(UnsupportedPipelineError, match=r"guidance='batch'"):
        bind(parts()[2], CFGCutoff(0.4))


def test_interrupt_lets_the_loop_run_out() -> None:
    unet, scheduler, loop = parts()
    look = Look()
    with bind(loop, look, Interrupt(3, picture="latents")) as callbacks:
        made = in_a_batch(unet, scheduler)
        assert callbacks.state == "interrupted"
    assert scheduler.calls == 4
    assert np.array_equal(made, look.latents[-1])


def test_loop_that_is_left_early() -> None:
    unet, scheduler, loop = parts()
    latents, embeds = start()
    _, positive = OPS.chunk(embeds, 2)
    timesteps, done = scheduler.set_timesteps(10), 0
    with bind(loop, Interrupt(2)) as callbacks:
        for t in timesteps:
            noise = unet(latents, t, encoder_hidden_states=positive)
            latents = scheduler.step(noise, t, latents).prev_sample
            done += 1
            if callbacks.state == "interrupted":
                break
    assert (done, type(scheduler)) == (3, Scheduler)


def test_cancel() -> None:
    unet, scheduler, loop = parts()
    plain = in_a_batch(unet, scheduler)

    class Cancel(Callback):
        def on_step_end(self, step: Step) -> None:
            if step.index == 2:
                callbacks.cancel()

    callbacks = bind(loop, Cancel())
    with pytest.raises(GenerationCancelled) as caught, callbacks:
        in_a_batch(unet, scheduler)
    assert (caught.value.step, callbacks.state) == (2, "cancelled")
    assert np.array_equal(in_a_batch(unet, scheduler), plain)


def test_cancel_at_once_of_a_loop() -> None:
    """From another thread, in the middle of a step: no further block is computed."""
    unet, scheduler = BlockUNet(), Scheduler()
    callbacks = bind(Loop(unet=unet, scheduler=scheduler))

    def on_block(name: str) -> None:
        if len(unet.computed) == 5 * 2 + 2:
            thread = threading.Thread(target=callbacks.cancel, kwargs={"now": True})
            thread.start()
            thread.join(WAIT)

    unet.on_block = on_block
    with pytest.raises(GenerationCancelled), callbacks:
        in_a_batch(unet, scheduler)
    assert len(unet.computed) == 5 * 2 + 2
    assert callbacks.state == "cancelled"


def test_error_in_the_block_leaves_nothing() -> None:
    unet, scheduler, loop = parts()
    plain, look = in_a_batch(unet, scheduler), Look()
    callbacks = bind(loop, look)
    with pytest.raises(ZeroDivisionError), callbacks:
        assert in_two_calls(unet, scheduler).shape[0] / 0
    with pytest.raises(TypeError), callbacks:
        scheduler.set_timesteps("many")  # type: ignore[arg-type]
    assert type(scheduler) is Scheduler
    assert np.array_equal(in_a_batch(unet, scheduler), plain)
    assert len(look.seen) == 8


def test_two_loops_in_one_block_are_two_runs() -> None:
    unet, scheduler, loop = parts()
    look = Look()
    with bind(loop, look):
        in_a_batch(unet, scheduler)
        in_two_calls(unet, scheduler)
    assert look.seen == [(i, 10) for i in range(10)] + [(i, 8) for i in range(8)]


def test_second_block_on_the_same_parts() -> None:
    unet, scheduler, loop = parts()
    look = Look()
    callbacks = bind(loop, look)
    for _ in range(2):
        with callbacks:
            in_a_batch(unet, scheduler)
    assert look.seen == [(i, 10) for i in range(10)] * 2


def test_block_within_a_block_is_refused() -> None:
    unet, scheduler, loop = parts()
    other = bind(Loop(unet=ToyUNet(), scheduler=scheduler), Look())
    with bind(loop, Look()):
        with pytest.raises(PipelineBusyError):
            other.__enter__()
        in_a_batch(unet, scheduler)


def test_preview_of_a_loop() -> None:
    unet, scheduler, loop = parts()
    frames: list[PreviewFrame] = []
    with bind(loop, Preview(frames, factors=FORMAT)):
        in_a_batch(unet, scheduler)
    assert len(frames) == 10


def test_while_loop_says_its_steps() -> None:
    def loop_of(scheduler: Scheduler, unet: ToyUNet) -> None:
        latents, embeds = start()
        _, positive = OPS.chunk(embeds, 2)
        timesteps, i = scheduler.set_timesteps(4), 0
        while i < 4:
            noise = unet(latents, timesteps[i], encoder_hidden_states=positive)
            latents = scheduler.step(noise, timesteps[i], latents).prev_sample
            i += 1

    unet, scheduler, loop = parts()
    with (
        pytest.raises(UnsupportedPipelineError, match="num_timesteps="),
        bind(loop, Look()),
    ):
        loop_of(scheduler, unet)
    unet, scheduler, loop = parts(num_timesteps=4)
    look = Look()
    with bind(loop, look):
        loop_of(scheduler, unet)
    assert look.seen == [(i, 4) for i in range(4)]


def test_loop_that_never_steps() -> None:
    with pytest.warns(RuntimeWarning, match="before any step"), bind(parts()[2], Look()):
        pass


def test_what_is_no_loop() -> None:
    with pytest.raises(TypeError, match="a scheduler with a step"):
        Loop(unet=ToyUNet(), scheduler=None)
    with pytest.raises(TypeError, match="needs the model"):
        Loop(vae=object(), scheduler=Scheduler())
    with pytest.raises(ValueError, match="guidance is"):
        Loop(unet=ToyUNet(), scheduler=Scheduler(), guidance="both")  # type: ignore[arg-type]
    callbacks = bind(parts()[2], Look())
    with pytest.raises(UnsupportedPipelineError, match="in a block, as in"):
        callbacks("a cat")
    with pytest.raises(UnsupportedPipelineError, match="in a block, as in"):
        dict(callbacks)


def test_what_the_loop_hands_to_the_step_is_known() -> None:
    """What is computed of a step may depend on it, and stands in no local of the loop."""
    unet, scheduler, loop = parts()
    latents, embeds = start()
    _, positive = OPS.chunk(embeds, 2)
    found = []

    class Asks(Callback):
        def on_step_end(self, step: Step) -> None:
            found.append(step.run.target.step_arguments)

    timesteps = scheduler.set_timesteps(2)
    with bind(loop, Asks()) as callbacks:
        for t in timesteps:
            noise = unet(latents, t, encoder_hidden_states=positive)
            latents = scheduler.step(noise, t, latents, eta=0.5).prev_sample
    assert found == [{"eta": 0.5}] * 2
    assert callbacks._bound.target.step_arguments is None


SCRIPT = """\
from unicb import Loop, StepTimer, bind
from test_loop_by_hand import Scheduler, ToyUNet, start

unet, scheduler, timer = ToyUNet(), Scheduler(), StepTimer(wait=False)
latents, embeds = start()
scheduler.set_timesteps(6)
with bind(Loop(unet=unet, scheduler=scheduler), timer) as callbacks:
    for t in scheduler.timesteps:
        noise = unet(latents, t, encoder_hidden_states=embeds)
        latents = scheduler.step(noise, t, latents).prev_sample
print(callbacks.state, len(timer.times.seconds))
"""


def test_loop_of_a_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It stands in no function, after other statements."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    runpy.run_path(str(script), run_name="__main__")
    assert capsys.readouterr().out == "finished 5\n"
