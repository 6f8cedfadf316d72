"""Faults in unicb itself, for what no backend can get wrong."""

from __future__ import annotations

import copy
import math
import threading
from pathlib import Path
from typing import Any

import numpy as np
from mutation import MoreKinds, after, instead, mutant, value

import unicb._bind_checks
import unicb.latents.rgb
import unicb.run.call
import unicb.sinks.background
from unicb import Binding, CFGCutoff, Interrupt, Preview, Step, UnicbError
from unicb.callback import FunctionCallback
from unicb.callbacks._cutoff import Cutoff
from unicb.guidance._batch import BatchCut
from unicb.guidance._blocks import Blocks
from unicb.guidance._guided import RunGuidance
from unicb.latents.denoised import LazyDenoised
from unicb.run.call import Call
from unicb.run.denoised import RunDenoised
from unicb.run.handle import Handle
from unicb.run.loop import Outputs, WatchedLoop
from unicb.run.run import Run
from unicb.run.stopping import Gates, Replay
from unicb.sinks import Background, FileSink, Throttle
from unicb_numpy import NumpyBackend


def _keep_first(init: Any) -> Any:
    def broken(self: Blocks, *args: Any) -> None:
        init(self, *args)
        self._first = 0

    return broken


def _swallow(on_step_end: Any) -> Any:
    def broken(self: Call, pipeline: Any, index: int, timestep: Any, tensors: Any) -> Any:
        try:
            return on_step_end(self, pipeline, index, timestep, tensors)
        except Exception:
            return tensors

    return broken


def _wrap(on_step_end: Any) -> Any:
    def broken(*args: Any) -> Any:
        try:
            return on_step_end(*args)
        except Exception as error:
            raise UnicbError(f"callback failed: {error}") from error

    return broken


def _adopt(begin: Any) -> Any:
    def broken(self: Call, pipeline: Any, *args: Any) -> Any:
        self._bound.target.pipeline = pipeline
        return begin(self, pipeline, *args)

    return broken


def _separate_tensors(step_end: Any) -> Any:
    """Each callback gets the loop's tensors, and only the last one's go back."""

    def broken(self: Run, index: int, timestep: Any, tensors: Any) -> Any:
        bound, self._bound = self._bound, self._bound._replace(callbacks=())
        outputs = step_end(self, index, timestep, tensors)
        for callback, names in bound.callbacks:
            outputs = Outputs(tensors)
            step = Step(self, index, self.pipeline.num_timesteps, timestep, outputs, tensors)
            step._current = callback, names
            callback.on_step_end(step)
        self._bound = bound
        return outputs

    return broken


def _cut_once(on_step_end: Any) -> Any:
    def broken(self: Any, step: Step) -> None:
        self.run = getattr(self, "run", 0) + (step.index == 0)
        if self.run == 1:
            on_step_end(self, step)

    return broken


def _main_thread_only(interrupt: Any) -> Any:
    def broken(self: Binding) -> bool:
        here = threading.current_thread() is threading.main_thread()
        return here and bool(interrupt(self))

    return broken


def _always_finished(settle: Any) -> Any:
    return lambda self, state: settle(self, "finished")


def _always_failed(settle: Any) -> Any:
    return lambda self, state: settle(self, "failed" if state == "cancelled" else state)


def _needs_a_run(ask: Any) -> Any:
    def broken(self: Handle, request: Any) -> bool:
        return self.state != "pending" and bool(ask(self, request))

    return broken


def _waits_for_the_next_run(ask: Any) -> Any:
    def broken(self: Handle, request: Any) -> bool:
        self.request = request
        return True

    return broken


def _cancel_by_interrupt(self: Binding, now: bool = False) -> bool:
    return self.interrupt()


def _without_latents(error: Any, *_: Any) -> Any:
    error.latents = np.zeros((0, 4, 8, 8))
    return error


def _touch(on_step_end: Any) -> Any:
    def broken(self: Preview, step: Step) -> None:
        on_step_end(self, step)
        step["latents"] = step.ops.clamp(step["latents"], -1.0, 1.0)

    return broken


def _fails_too(close: Any) -> Any:
    def broken(self: Background) -> None:
        worker = self._worker
        close(self)
        if worker is not None and worker.is_off:
            raise OSError("disk full")

    return broken


def _never_off(wants_more: Any) -> Any:
    def broken(self: Background) -> bool:
        wants_more(self)
        self.close()
        return True

    return broken


def _no_folders(call: Any) -> Any:
    def broken(self: Any, frame: Any) -> None:
        if Path(self._batched.format(step=0, image=0, num_timesteps=1)).parent.is_dir():
            call(self, frame)

    return broken


CORE = (
    mutant(
        "plain functions get latents only",
        "and none of the other tensors that the pipeline offers",
        "untouched_run_is_bit_identical",
        FunctionCallback,
        "__init__",
        lambda init: lambda self, function, tensors: init(self, function, ("latents",)),
    ),
    mutant(
        "callbacks do not see each other's tensors",
        "each gets what the loop handed over",
        "written_latents_reach_the_loop",
        Run,
        "step_end",
        _separate_tensors,
    ),
    mutant(
        "what is written is dropped",
        "step[name] = … goes nowhere",
        "written_latents_reach_the_loop",
        Step,
        "__setitem__",
        instead(lambda self, name, value: None),
    ),
    mutant(
        "progress starts at 0",
        "the share of steps before this one",
        "step_tells_the_truth",
        Step,
        "progress",
        value(lambda step, _: step.index / step.num_timesteps),
    ),
    mutant(
        "timestep is no float",
        "it is handed over as the framework has it",
        "step_tells_the_truth",
        Step,
        "timestep",
        value(lambda step, true: np.asarray(true)),
    ),
    mutant(
        "step.pipeline is a copy",
        "callbacks cannot reach the pipeline that runs",
        "step_tells_the_truth",
        Step,
        "pipeline",
        value(lambda step, true: copy.copy(true)),
    ),
    mutant(
        "guidance scale reads as its default",
        "and not as that of the run",
        "step_tells_the_truth guidance_scale_is_set_and_put_back",
        Step,
        "guidance_scale",
        value(lambda step, true: 5.0),
    ),
    mutant(
        "guidance scale is not set",
        "the assignment changes nothing",
        "guidance_scale_is_set_and_put_back",
        RunGuidance,
        "set_scale_attribute",
        instead(lambda self, scale: None),
    ),
    mutant(
        "guidance scale is not put back",
        "the pipeline keeps the callback's",
        "guidance_scale_is_set_and_put_back",
        RunGuidance,
        "set_scale_attribute",
        instead(lambda self, scale: setattr(self._pipeline, "_guidance_scale", scale)),
    ),
    mutant(
        "exceptions are swallowed",
        "a failing callback goes unnoticed",
        "exception_reaches_caller_and_all_is_put_back second_pipeline_is_refused "
        "two_runs_at_once_are_refused function_must_return_a_dict_or_none",
        Call,
        "__call__",
        _swallow,
    ),
    mutant(
        "exceptions are wrapped",
        "the caller gets an UnicbError for every failure",
        "exception_reaches_caller_and_all_is_put_back function_must_return_a_dict_or_none",
        Call,
        "__call__",
        _wrap,
        error=UnicbError,
    ),
    mutant(
        "a failed run is not ended",
        "nothing is undone as long as somebody has the traceback",
        "exception_reaches_caller_and_all_is_put_back",
        Run,
        "finish",
        instead(lambda self, *_: None),
    ),
    mutant(
        "nothing is undone",
        "a run forgets what it has to put back",
        "cut_leaves_nothing_behind guidance_scale_is_set_and_put_back",
        Run,
        "on_finish",
        instead(lambda self, undo: None),
    ),
    mutant(
        "the loop's end goes unnoticed",
        "after a failure between two steps nobody cleans up",
        "exception_in_the_loop_puts_all_back",
        WatchedLoop,
        "_let_go",
        instead(lambda self, _: None),
    ),
    mutant(
        "every call belongs to the run",
        "hooks cut whoever calls the denoiser while they are on it",
        "abandoned_run_does_not_touch_the_next",
        Run,
        "owns_current_call",
        instead(lambda self: True),
    ),
    mutant(
        "with block does nothing",
        "its end is not the end of the run",
        "with_block_puts_all_back",
        Binding,
        "__exit__",
        instead(lambda *_: None),
    ),
    mutant(
        "unknown tensors are left out",
        "a typo in a name goes unnoticed",
        "unknown_tensor_is_refused_at_bind",
        unicb._bind_checks,
        "tensor_names",
        after(lambda names, *_: tuple(n for n in names if "lattents" not in n)),
    ),
    mutant(
        "a binding adopts pipelines",
        "whichever calls it is its own from then on",
        "second_pipeline_is_refused",
        Call,
        "_begin",
        _adopt,
    ),
    mutant(
        "runs overlap",
        "a binding does not notice that it is in use",
        "two_runs_at_once_are_refused",
        Run,
        "is_executing",
        instead(lambda self: False),
    ),
    mutant(
        "returned values are not looked at",
        "a function may return anything",
        "function_must_return_a_dict_or_none",
        FunctionCallback,
        "on_step_end",
        instead(
            lambda self, step: self.function(
                step.pipeline,
                step.index,
                step.timestep,
                {n: step._tensors[n] for n in self.tensors},
            )
        ),
    ),
    mutant(
        "functions have no name",
        "an error does not say which function is meant",
        "function_must_return_a_dict_or_none",
        FunctionCallback,
        "_name",
        instead(lambda self: "callback"),
    ),
    mutant(
        "the unconditional row is kept",
        "guidance is cut to the wrong half",
        "cut_is_exact cut_after_first_and_before_last_step",
        Blocks,
        "__init__",
        _keep_first,
    ),
    mutant(
        "hooks stay after the run",
        "nobody takes them away",
        "cut_leaves_nothing_behind with_block_puts_all_back",
        BatchCut,
        "remove",
        instead(lambda self: None),
    ),
    mutant(
        "cut one step late",
        "the index is counted from 1",
        "cut_is_exact cut_after_first_and_before_last_step ratio_cuts_at_truncated_step",
        Cutoff,
        "_step",
        after(lambda cutoff, *_: cutoff + 1),
    ),
    mutant(
        "cut never after the first step",
        "index 0 is taken for no index",
        "cut_after_first_and_before_last_step",
        Cutoff,
        "_step",
        after(lambda cutoff, *_: cutoff or 1),
    ),
    mutant(
        "cut at the last step comes early",
        "the index is limited to where a cut still saves work",
        "cut_at_last_step_changes_nothing",
        Cutoff,
        "_step",
        after(lambda cutoff, self, num_timesteps: min(cutoff, num_timesteps - 2)),
    ),
    mutant(
        "ratio is rounded up",
        "the cut comes at ceil(num_timesteps * ratio)",
        "ratio_cuts_at_truncated_step",
        Cutoff,
        "_step",
        after(
            lambda cutoff, self, n: cutoff if self._ratio is None else math.ceil(n * self._ratio)
        ),
    ),
    mutant(
        "guidance is always taken for on",
        "rows are cut where there are none to spare",
        "guidance_off_is_left_alone",
        BatchCut,
        "_order",
        instead(lambda self, rows, each: self._models.facts.order),
        error=ValueError,
    ),
    mutant(
        "half a step passes for a whole one",
        "with a scheduler of order 2, the cut comes between the halves",
        "cut_waits_for_a_whole_step",
        Step,
        "is_whole",
        value(lambda step, whole: True),
    ),
    mutant(
        "a whole step passes for half of one",
        "the cut never comes",
        "cut_waits_for_a_whole_step",
        Step,
        "is_whole",
        value(lambda step, whole: False),
        error=ValueError,
    ),
    mutant(
        "caches are reset for good",
        "a mark stays on the module",
        "reset_caches_leaves_nothing_behind",
        NumpyBackend,
        "reset_caches",
        instead(lambda self, module, rehearse=False: setattr(module, "reset", True)),
    ),
    mutant(
        "only the first run is cut",
        "the callback remembers that it is done",
        "two_runs_on_one_binding abandoned_run_does_not_touch_the_next",
        CFGCutoff,
        "on_step_end",
        _cut_once,
    ),
    mutant(
        "interrupted run gives noisy latents",
        "the denoised ones are not put into its loop",
        "interrupt_gives_the_denoised_picture",
        RunDenoised,
        "put_into",
        instead(lambda self, outputs, handed: None),
    ),
    mutant(
        "denoised latents are the noisy ones",
        "they are handed out as they are",
        "interrupt_gives_the_denoised_picture",
        RunDenoised,
        "compute",
        instead(lambda self, latents: latents),
    ),
    mutant(
        "interrupt one step late",
        "the index is counted from 1",
        "interrupt_stops_after_step",
        Interrupt,
        "on_step_end",
        instead(lambda self, step: step.interrupt() if step.index > self._step else None),
    ),
    mutant(
        "a loop without a flag runs on",
        "its models compute what nobody wants any more",
        "interrupt_stops_after_step",
        Run,
        "settle",
        instead(lambda self, outputs, handed: self.finish()),
        harness=MoreKinds,
    ),
    mutant(
        "a loop without a flag computes the rest",
        "its latents are kept, and the work is done all the same",
        "interrupt_stops_after_step",
        Replay,
        "_answer",
        instead(lambda self, key, call, args, kwargs: call(*args, **kwargs)),
        harness=MoreKinds,
    ),
    mutant(
        "an interrupted run is taken for a finished one",
        "a user interface shows the wrong word",
        "interrupt_stops_after_step",
        Handle,
        "_settled",
        _always_finished,
    ),
    mutant(
        "a cancelled run is taken for a failed one",
        "a user interface shows an error",
        "cancel_raises_with_latents",
        Handle,
        "_settled",
        _always_failed,
    ),
    mutant(
        "cancel waits for the step",
        "whatever it is asked for",
        "cancel_now_does_not_wait_for_the_step",
        Binding,
        "cancel",
        lambda cancel: lambda self, now=False: cancel(self),
    ),
    mutant(
        "the gates stay",
        "each block of the denoiser is called through them for ever",
        "cancel_now_does_not_wait_for_the_step",
        Gates,
        "remove",
        instead(lambda self: None),
    ),
    mutant(
        "interrupt works in the main thread",
        "and in no other",
        "interrupt_from_another_thread",
        Binding,
        "interrupt",
        _main_thread_only,
    ),
    mutant(
        "interrupt needs a run",
        "one that comes before the run is forgotten",
        "interrupt_before_first_run",
        Handle,
        "ask",
        _needs_a_run,
    ),
    mutant(
        "interrupt waits for the next run",
        "one that comes after a run stops the next one",
        "interrupt_before_first_run",
        Handle,
        "ask",
        _waits_for_the_next_run,
    ),
    mutant(
        "cancel is an interrupt",
        "the pipeline returns as if all were well",
        "cancel_raises_with_latents",
        Binding,
        "cancel",
        instead(_cancel_by_interrupt),
    ),
    mutant(
        "cancel loses the latents",
        "the error has none",
        "cancel_raises_with_latents",
        unicb.run.call,
        "cancelled",
        after(_without_latents),
    ),
    mutant(
        "preview shows one picture",
        "the first of the batch",
        "preview_shows_every_step_and_picture preview_writes_files",
        Preview,
        "_shaped",
        after(lambda shaped, *_: (shaped[0][:1], [])),
    ),
    mutant(
        "preview enlarges its pictures",
        "to the size of the picture that is decoded",
        "preview_shows_every_step_and_picture",
        Preview,
        "_shaped",
        after(lambda shaped, *_: ([picture.resize((64, 64)) for picture in shaped[0]], [])),
    ),
    mutant(
        "preview changes the latents",
        "they are limited for display, and go back so",
        "preview_shows_every_step_and_picture failing_sink_never_costs_the_picture",
        Preview,
        "on_step_end",
        _touch,
    ),
    mutant(
        "preview leaves out the last step",
        "it is no multiple of every",
        "preview_writes_files",
        Throttle,
        "shows",
        instead(lambda self, step, num_timesteps: step % self._every == 0),
    ),
    mutant(
        "preview leaves out the first step",
        "0 is taken for no index",
        "preview_shows_every_step_and_picture preview_writes_files",
        Throttle,
        "shows",
        after(lambda shows, self, step, num_timesteps: shows and step > 0),
    ),
    mutant(
        "denoised preview is noisy",
        "the estimate is thrown away",
        "preview_shows_denoised_latents",
        Step,
        "lazy_denoised",
        after(lambda lazy, *_: None),
    ),
    mutant(
        "denoised preview of half steps",
        "what a scheduler of order 2 predicts is shown between the whole steps",
        "preview_shows_denoised_latents",
        Step,
        "is_whole",
        value(lambda step, whole: True),
    ),
    mutant(
        "denoised preview stays noisy in its picture",
        "it says that it is denoised",
        "preview_shows_denoised_latents",
        RunDenoised,
        "lazy",
        after(lambda lazy, self, latents: lazy and LazyDenoised((latents,), lambda x: x)),
    ),
    mutant(
        "preview makes no folders",
        "files go to folders that exist",
        "preview_writes_files",
        FileSink,
        "__call__",
        _no_folders,
    ),
    mutant(
        "a failing sink fails the run",
        "its exception is not caught",
        "failing_sink_never_costs_the_picture",
        Background,
        "close",
        _fails_too,
        error=OSError,
    ),
    mutant(
        "a failing sink goes unnoticed",
        "there is no warning",
        "failing_sink_never_costs_the_picture",
        unicb.sinks.background,
        "_tell",
        instead(lambda complaint: None),
    ),
    mutant(
        "a failing sink is called again",
        "with a warning at each step",
        "failing_sink_never_costs_the_picture",
        Background,
        "wants_more",
        _never_off,
    ),
    mutant(
        "colours are blue, green, red",
        "the order that some image libraries have",
        "preview_colours",
        unicb.latents.rgb,
        "RGBArray",
        after(lambda colours, *_: colours._replace(pixels=colours.pixels[..., ::-1])),
    ),
    mutant(
        "colours lack their bias",
        "the format's constant part is left out",
        "preview_colours",
        unicb.latents.rgb,
        "_weights",
        after(lambda made, *_: (made[0], made[1] * [[0], [0], [0], [1]])),
    ),
    mutant(
        "colours of the transposed picture",
        "height and width are mixed up",
        "preview_colours",
        unicb.latents.rgb,
        "RGBArray",
        after(lambda colours, *_: colours._replace(pixels=colours.pixels.transpose(0, 2, 1, 3))),
        error=ValueError,
    ),
    mutant(
        "good latents are called not finite",
        "each preview warns",
        "preview_colours",
        unicb.latents.rgb,
        "RGBArray",
        after(lambda colours, *_: colours._replace(finite=False)),
    ),
    mutant(
        "bad latents are called finite",
        "nobody is warned",
        "latents_that_are_not_finite_are_black",
        unicb.latents.rgb,
        "RGBArray",
        after(lambda colours, *_: colours._replace(finite=True)),
    ),
    mutant(
        "bad latents are shown grey",
        "they look like a dark part of the picture",
        "latents_that_are_not_finite_are_black",
        unicb.latents.rgb,
        "RGBArray",
        after(lambda colours, *_: colours._replace(pixels=np.maximum(colours.pixels, 1))),
    ),
)
