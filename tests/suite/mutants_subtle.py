"""Faults that got past an earlier form of the suite, and those that its later checks are for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from mutation import MoreKinds, after, instead, loop, mutant, onto

import unicb.run.call
from unicb import GenerationCancelled, Preview
from unicb.callbacks._cutoff import Cutoff
from unicb.run.handle import Handle
from unicb.sinks import Background, FileSink
from unicb_numpy import NumpyBackend
from unicb_numpy.harness import NumpyHarness
from unicb_numpy.ops import NumpyOps, StrictTensor

NEGATIVE_BACK = 'negative = callback_outputs.pop("negative_prompt_embeds", negative_prompt_embeds)'


def _truncated(ops: Any, a: Any, like: StrictTensor) -> StrictTensor:
    made = np.array(a, dtype=like.dtype)
    if like.dtype == np.float16:
        down = np.nextafter(made, np.float16(0))
        made = np.where(np.abs(made.astype(np.float64)) > np.abs(a), down, made)
    return StrictTensor(made)


def _tensorfloat(a: Any) -> Any:
    mantissa, exponent = np.frexp(a.astype(np.float64))
    return np.ldexp(np.round(mantissa * 2**11) / 2**11, exponent)


def _keep_requests(settle: Any) -> Any:
    def broken(self: Handle, state: Any) -> None:
        wanted = self.request
        settle(self, state)
        self.request = wanted

    return broken


def _swapped(operator: str) -> Any:
    plain = getattr(np.ndarray, operator)

    def broken(self: StrictTensor, other: Any) -> StrictTensor:
        if isinstance(other, StrictTensor):
            return StrictTensor(plain(other.data, self.data))
        return StrictTensor(plain(self.data, other))

    return instead(broken)


class _Blind(NumpyHarness):
    def traces(self, pipeline: Any) -> object:
        return 0


def _last_in_first_out(self: NumpyBackend, module: Any, around: Any) -> Any:
    call = module.forward
    module.forward = lambda *args, **kwargs: around(call, args, kwargs)
    return lambda: vars(module).pop("forward", None)


class _Renamed(NumpyHarness):
    backend = NumpyBackend()
    backend.name = "nmupy"


class _WrongRow(MoreKinds):
    def build(self, kind: str) -> Any:
        pipeline = super().build(kind)
        if kind == "one prompt":
            facts = replace(type(pipeline).unicb_facts, order=("conditional", "unconditional"))
            kind_ = type("Other", (type(pipeline),), {"unicb_facts": facts})
            return kind_()
        return pipeline


def _one_for_all_runs(_: Any) -> Any:
    def broken(self: Background) -> Background:
        def close() -> None:
            worker = self._worker
            Background.close(self)
            self._worker = worker

        self.close = close  # type: ignore[method-assign]
        return self

    return broken


SUBTLE = (
    mutant(
        "to_uint8 makes NaN white (numbers)",
        "NaN is never drawn in test_to_uint8",
        "to_uint8",
        NumpyOps,
        "to_uint8",
        instead(lambda ops, x: np.clip(np.nan_to_num(x.data, nan=255), 0, 255).astype(np.uint8)),
    ),
    mutant(
        "from_numpy truncates to half precision",
        "toward zero instead of to the nearest",
        "doors_round_trip",
        NumpyOps,
        "from_numpy",
        instead(_truncated),
    ),
    mutant(
        "matmul in TF32",
        "ten bits of each factor, as CUDA's fast mode",
        "matmul",
        NumpyOps,
        "matmul",
        instead(
            lambda ops, a, b: StrictTensor(
                (_tensorfloat(a.data) @ _tensorfloat(b.data)).astype(a.dtype)
            )
        ),
    ),
    mutant(
        "matmul takes the first of a batched left side",
        "a batch is broadcast on the right side only",
        "matmul",
        NumpyOps,
        "matmul",
        lambda matmul: (
            lambda ops, a, b: matmul(ops, a if len(a.shape) == 2 or len(b.shape) > 2 else a[0], b)
        ),
    ),
    mutant(
        "matmul knows no fourth dimension",
        "a framework's bmm: three at most",
        "matmul",
        NumpyOps,
        "matmul",
        lambda matmul: lambda ops, a, b: matmul(ops, a, b if len(b.shape) < 4 else b * 0.0),
    ),
    mutant(
        "numbers divide as integers",
        "12 / x with x of 5 is 2",
        "arithmetic_and_indexing",
        StrictTensor,
        "__rtruediv__",
        onto(np.floor),
    ),
    mutant(
        "tensor minus tensor swapped",
        "only x + x is tried with two tensors",
        "arithmetic_and_indexing",
        StrictTensor,
        "__sub__",
        _swapped("__sub__"),
    ),
    mutant(
        "tensor by tensor swapped",
        "the same of division",
        "arithmetic_and_indexing",
        StrictTensor,
        "__truediv__",
        _swapped("__truediv__"),
    ),
    mutant(
        "number plus tensor loses the number",
        "1 + x is never tried",
        "arithmetic_and_indexing",
        StrictTensor,
        "__radd__",
        instead(lambda self, other: self),
    ),
    mutant(
        "concat in place",
        "the arguments are spoilt",
        "concat verbs_leave_their_arguments_alone",
        NumpyOps,
        "concat",
        after(lambda made, ops, parts: parts[0].data.fill(0) or made),
    ),
    mutant(
        "backend owns everything",
        "any object is claimed, and with a second backend installed every bind fails",
        "backend_claims_no_foreign_object",
        NumpyBackend,
        "owns",
        instead(lambda self, pipeline: True),
    ),
    mutant(
        "blind harness hides a hook that stays",
        "traces sees nothing, so that nothing is ever left behind",
        "harness_sees_what_is_left_behind",
        NumpyBackend,
        "hook",
        after(lambda remove, *_: lambda: None),
        harness=_Blind,
    ),
    mutant(
        "facts name the wrong row",
        "for a kind that is not the first: the reference takes its row from the same facts",
        "conditional_row_is_conditional",
        harness=_WrongRow,
    ),
    mutant(
        "ratio is rounded",
        "round(2.5) is 2",
        "ratio_cuts_at_truncated_step",
        Cutoff,
        "_step",
        after(lambda cutoff, self, n: cutoff if self._ratio is None else round(n * self._ratio)),
    ),
    mutant(
        "requests outlive their run",
        "the next run is stopped or cancelled too",
        "interrupt_from_another_thread",
        Handle,
        "_settled",
        _keep_requests,
    ),
    mutant(
        "cancel outlives its run",
        "the next run is cancelled too",
        "cancel_raises_with_latents",
        Handle,
        "_settled",
        _keep_requests,
        error=GenerationCancelled,
    ),
    mutant(
        "cancel hands over other latents",
        "of the right shape",
        "cancel_raises_with_latents",
        unicb.run.call,
        "cancelled",
        after(lambda error, *_: setattr(error, "latents", error.latents * 0) or error),
    ),
    mutant(
        "preview shows one picture many times",
        "the pictures themselves are never looked at",
        "preview_shows_every_step_and_picture",
        Preview,
        "_shaped",
        after(lambda shaped, *_: (shaped[0][:1] * len(shaped[0]), [])),
    ),
    mutant(
        "preview files hold one picture",
        "whichever row their names tell",
        "preview_writes_files",
        FileSink,
        "__call__",
        lambda call: (
            lambda self, frame: call(
                self, replace(frame, images=[frame.images[-1]] * len(frame.images))
            )
        ),
    ),
    mutant(
        "previews stay off",
        "after one failure, in all later runs",
        "failing_sink_never_costs_the_picture",
        Background,
        "for_run",
        _one_for_all_runs,
    ),
    mutant(
        "backend under another name",
        "its name is not that of its entry point",
        "backend_is_found_by_its_name",
        harness=_Renamed,
    ),
    mutant(
        "host arrays taken for tensors",
        "anything with a shape is a tensor",
        "backend_knows_its_tensors",
        NumpyBackend,
        "is_tensor",
        instead(lambda self, value: hasattr(value, "shape")),
    ),
    mutant(
        "no versions",
        "a report that does not tell what was tested",
        "backend_tells_what_it_stands_on",
        NumpyBackend,
        "versions",
        instead(lambda self: {}),
    ),
    mutant(
        "loop forgets an offered tensor",
        "offered to callbacks and never taken back",
        "every_offered_tensor_reaches_the_loop",
        harness=loop((NEGATIVE_BACK, "negative = negative_prompt_embeds")),
    ),
    mutant(
        "chunk does not split nothing",
        "a batch of no rows is one part",
        "empty_tensors",
        NumpyOps,
        "chunk",
        after(lambda parts, ops, x, n: parts if x.shape[0] else parts[:1]),
    ),
    mutant(
        "subnormal numbers count as one",
        "rounded away from zero",
        "subnormal_numbers",
        NumpyOps,
        "to_uint8",
        after(lambda made, ops, x: np.where((x.data > 0) & (x.data < 1e-39), 1, made)),
    ),
    mutant(
        "hooks go in reverse order only",
        "undoing the earlier of two hooks puts the bare call back",
        "hooks_nest_and_go_in_any_order",
        NumpyBackend,
        "hook",
        instead(_last_in_first_out),
    ),
)
