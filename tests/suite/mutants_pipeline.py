"""Faults in a backend, its harness and the loop of its pipelines."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from mutation import after, instead, loop, mutant, onto, value

from unicb import UnicbError, UnsupportedPipelineError
from unicb_numpy import NumpyBackend
from unicb_numpy.harness import NumpyHarness
from unicb_numpy.ops import NumpyOps, StrictTensor
from unicb_numpy.pipelines import ToyPipeline, ToyScheduler, ToyUNet

WRITE_BACK = 'latents = callback_outputs.pop("latents", latents)'
EMBEDS_BACK = 'prompt_embeds = callback_outputs.pop("prompt_embeds", prompt_embeds)'
CALL = "callback_on_step_end(self, i, t, tensors)"
RESET = "self._guidance_scale, self._interrupt = guidance_scale, False"


class _OwnBackend(NumpyHarness):
    backend = NumpyBackend()


def _sticky_hook(self: NumpyBackend, module: Any, around: Any) -> Callable[[], None]:
    call = module.forward
    module.forward = lambda *args, **kwargs: around(call, args, kwargs)
    return lambda: setattr(module, "forward", call)


def _copied_too(remove: Any, _: NumpyBackend, module: Any, around: Any) -> Any:
    module.forward._end_plain_copies()
    return remove


def _on_error(act: Callable[[Exception], Any]) -> Callable[[Any], Any]:
    """A pipeline's call that acts on exceptions of its loop instead of letting them pass."""

    def broken(call: Any) -> Any:
        @functools.wraps(call)
        def run(*args: Any, **kwargs: Any) -> Any:
            try:
                return call(*args, **kwargs)
            except Exception as error:
                return act(error)

        return run

    return broken


def _wrap(error: Exception) -> Any:
    raise RuntimeError("pipeline failed") from error


def _derive(error: Exception) -> Any:
    kind: Any = type(error)
    raise type(f"Pipeline{kind.__name__}", (kind,), {})() from error


PIPELINE = (
    mutant(
        "harness tests another backend object",
        "not the one that bind finds through the entry point",
        "backend_is_found_from_pipeline",
        harness=_OwnBackend,
    ),
    mutant(
        "backend disowns its pipelines",
        "owns looks for a class that was renamed",
        "backend_is_found_from_pipeline",
        NumpyBackend,
        "owns",
        instead(lambda self, pipeline: False),
        error=UnicbError,
    ),
    mutant(
        "noise is not seeded",
        "the harness's pipeline draws anew on each call",
        "same_case_gives_same_bits",
        harness=loop(("default_rng(seed)", "default_rng()")),
    ),
    mutant(
        "latents are not finite",
        "the tiny pipeline's arithmetic overflows",
        "same_case_gives_same_bits",
        ToyScheduler,
        "step",
        onto(lambda data: data * math.inf),
    ),
    mutant(
        "harness returns float64",
        "the harness hands over latents as they are",
        "same_case_gives_same_bits",
        NumpyHarness,
        "run",
        after(lambda latents, *_, **__: latents.astype(np.float64)),
    ),
    mutant(
        "loop rounds what comes back",
        "latents pass through float16 on their way back from the callback",
        "untouched_run_is_bit_identical preview_shows_every_step_and_picture",
        harness=loop(
            (
                WRITE_BACK,
                f"{WRITE_BACK}; latents = StrictTensor(latents.data.astype('f2').astype('f4'))",
            )
        ),
    ),
    mutant(
        "loop drops written latents",
        "it goes on with its own",
        "written_latents_reach_the_loop",
        harness=loop((WRITE_BACK, "pass")),
    ),
    mutant(
        "loop drops written embeddings",
        "it takes latents back and nothing else",
        "documented_recipe",
        harness=loop((EMBEDS_BACK, "pass")),
        error=ValueError,
    ),
    mutant(
        "loop mixes up what comes back",
        "negative embeddings are taken for the doubled ones",
        "untouched_run_is_bit_identical",
        harness=loop((EMBEDS_BACK, EMBEDS_BACK.replace('"p', '"negative_p'))),
        error=ValueError,
    ),
    mutant(
        "loop reads guidance once",
        "whether the batch is doubled is settled before the first step",
        "documented_recipe",
        harness=loop(
            ("guided = self.do_classifier_free_guidance", "pass"),
            (
                "timesteps = self.scheduler",
                "guided = self.do_classifier_free_guidance; timesteps = self.scheduler",
            ),
        ),
        error=ValueError,
    ),
    mutant(
        "loop reads the scale once",
        "a new guidance scale changes nothing, and the table does not say so",
        "guidance_scale_is_set_and_put_back",
        harness=loop(("uncond + self.guidance_scale", "uncond + guidance_scale")),
    ),
    mutant(
        "loop counts steps from 1",
        "callbacks are told the index of the next step",
        "step_tells_the_truth",
        harness=loop((CALL, "callback_on_step_end(self, i + 1, t, tensors)")),
    ),
    mutant(
        "loop always tells the first timestep",
        "the timestep does not move",
        "step_tells_the_truth",
        harness=loop((CALL, "callback_on_step_end(self, i, timesteps[0], tensors)")),
    ),
    mutant(
        "loop tells timesteps backwards",
        "timesteps rise",
        "step_tells_the_truth",
        harness=loop((CALL, "callback_on_step_end(self, i, timesteps[-1 - i], tensors)")),
    ),
    mutant(
        "loop wraps exceptions",
        "the caller gets a RuntimeError for every failure",
        "exception_reaches_caller_and_all_is_put_back",
        ToyPipeline,
        "__call__",
        _on_error(_wrap),
        error=RuntimeError,
    ),
    mutant(
        "loop derives its exceptions",
        "the caller gets a relative of what was raised",
        "exception_reaches_caller_and_all_is_put_back",
        ToyPipeline,
        "__call__",
        _on_error(_derive),
    ),
    mutant(
        "loop swallows exceptions",
        "it returns what it has, which is nothing",
        "exception_in_the_loop_puts_all_back abandoned_run_does_not_touch_the_next "
        "with_block_puts_all_back",
        ToyPipeline,
        "__call__",
        _on_error(lambda error: np.zeros((1, 4, 8, 8), np.float32)),
    ),
    mutant(
        "pipeline hides a tensor",
        "it offers latents and no embeddings",
        "unknown_tensor_is_refused_at_bind",
        ToyPipeline,
        "_callback_tensor_inputs",
        instead(("latents",)),
    ),
    mutant(
        "loop reads its interrupt flag and goes on",
        "every step is computed",
        "interrupt_stops_after_step interrupt_from_another_thread interrupt_before_first_run",
        harness=loop(("if self.interrupt:", "if self.interrupt and False:")),
    ),
    mutant(
        "loop keeps the interrupt flag",
        "it is not reset for the next run",
        "interrupt_spares_next_run",
        harness=loop((RESET, "self._guidance_scale = guidance_scale"), _interrupt=False),
    ),
    mutant(
        "interrupted loop goes on calling back",
        "it skips the work and not the callback",
        "interrupt_stops_after_step",
        harness=loop(("            continue", f"            {CALL}\n            continue")),
    ),
    mutant(
        "interrupted loop returns its start",
        "the latents before the first step",
        "interrupt_stops_after_step",
        harness=loop(
            ("if self.interrupt:", "if self.interrupt:\n            latents = start"),
            ("for i, t in", "start = latents\n    for i, t in"),
        ),
    ),
    mutant(
        "hook does nothing",
        "the framework's registry took it and never calls it",
        "cut_is_exact cut_after_first_and_before_last_step ratio_cuts_at_truncated_step "
        "two_runs_on_one_binding",
        NumpyBackend,
        "hook",
        instead(lambda self, module, around: lambda: None),
        error=UnsupportedPipelineError,
    ),
    mutant(
        "hook stays",
        "what should take it away does nothing",
        "cut_leaves_nothing_behind exception_reaches_caller_and_all_is_put_back "
        "exception_in_the_loop_puts_all_back with_block_puts_all_back",
        NumpyBackend,
        "hook",
        after(lambda remove, *_: lambda: None),
    ),
    mutant(
        "hook leaves an attribute",
        "the module gets its own method back, as an attribute of the instance",
        "cut_leaves_nothing_behind",
        NumpyBackend,
        "hook",
        instead(_sticky_hook),
    ),
    mutant(
        "copies have the hook",
        "what is copied is the module as it is found in a run",
        "copies_made_in_a_run_are_plain",
        NumpyBackend,
        "hook",
        after(_copied_too),
    ),
    mutant(
        "hook loses keywords",
        "the denoiser is called with its positional arguments alone",
        "cut_is_exact",
        NumpyBackend,
        "hook",
        lambda hook: (
            lambda self, module, around: hook(
                self, module, lambda call, args, kwargs: around(call, args, {})
            )
        ),
        error=TypeError,
    ),
    mutant(
        "guidance does nothing",
        "the tiny denoiser does not look at its embeddings",
        "cut_is_exact cut_after_first_and_before_last_step",
        ToyUNet,
        "forward",
        lambda forward: (
            lambda self, sample, timestep, encoder_hidden_states: forward(
                self, sample, timestep, encoder_hidden_states * 0
            )
        ),
    ),
    mutant(
        "loop always computes both halves",
        "a guidance scale of 1 is not taken for off",
        "guidance_off_is_left_alone",
        ToyPipeline,
        "do_classifier_free_guidance",
        value(lambda pipeline, true: True),
    ),
    mutant(
        "concat copies the first row",
        "to the size that is asked for: right for one picture only",
        "concat",
        NumpyOps,
        "concat",
        instead(
            lambda ops, parts: StrictTensor(
                np.concatenate([parts[0].data[:1]] * sum(len(part.data) for part in parts))
            )
        ),
    ),
)
