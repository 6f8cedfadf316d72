"""Toy pipelines of every way to guide, and eyes on what their denoiser is called with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
from loops import ConditionalFirst, LocalFlag, LoopPipeline, Switched, both, guided, ops

from unicb import PipelineFacts
from unicb_numpy.ops import StrictTensor
from unicb_numpy.pipelines import ToyPipeline

Array = npt.NDArray[Any]


def facts(**more: Any) -> PipelineFacts:
    return PipelineFacts(source="this test", denoisers=("unet",), **more)


class BatchOfLocal(LoopPipeline):
    """One call a step, and a scale that is a local of the loop."""

    unicb_facts = facts(guidance_scale="local")
    combine = staticmethod(guided)

    def __call__(  # type: ignore[override]
        self,
        prompts: list[str],
        steps: int = 10,
        guidance_scale: float = 5.0,
        callback_on_step_end: Any = None,
        callback_on_step_end_tensor_inputs: Any = ("latents",),
    ) -> Array:
        latents, positive, negative, timesteps = self.start(prompts, steps, guidance_scale)
        do_cfg = guidance_scale > 1
        embeds = both(negative, positive) if do_cfg else positive
        for i, t in enumerate(timesteps):
            model_input = both(latents, latents) if do_cfg else latents
            noise_pred = self.unet(model_input, t, encoder_hidden_states=embeds)
            if do_cfg:
                u, c = ops.chunk(noise_pred, 2)
                noise_pred = self.combine(u, c, guidance_scale)
            latents = self.scheduler.step(noise_pred, t, latents)
            if callback_on_step_end is not None:
                callback_outputs = callback_on_step_end(self, i, t, {"latents": latents})
                latents = callback_outputs.pop("latents")
        return latents.data


def from_conditional(u: StrictTensor, c: StrictTensor, scale: float) -> StrictTensor:
    return StrictTensor(c.data + scale * (c.data - u.data))


def rescaled(u: StrictTensor, c: StrictTensor, scale: float) -> StrictTensor:
    """As ``rescale_noise_cfg`` does: by the deviation of the conditional part."""
    made = guided(u, c, scale).data
    return StrictTensor(made * (0.7 * c.data.std() / made.std() + 0.3))


class FromConditional(BatchOfLocal):
    unicb_facts = facts(guidance_scale="local", combination="from_conditional")
    combine = staticmethod(from_conditional)


class Rescaled(BatchOfLocal):
    combine = staticmethod(rescaled)


class CallsOfLocal(LocalFlag):
    unicb_facts = facts(cfg="calls", guidance_scale="local")


class SwitchOfLocal(Switched):
    unicb_facts = facts(cfg="switch", guidance_scale="local")


class Inferred(ConditionalFirst):
    """Its facts are inferred from its code."""

    unicb_facts = None  # type: ignore[assignment]


class Known(ToyPipeline):
    """The toy, called as the other loops are."""

    def __init__(self, order: int = 1, dtype: str = "float64") -> None:
        super().__init__(order, dtype)

    def __call__(  # type: ignore[override]
        self,
        prompts: Any,
        steps: int = 10,
        guidance_scale: float = 5.0,
        callback_on_step_end: Any = None,
        callback_on_step_end_tensor_inputs: Any = ("latents",),
    ) -> Array:
        return super().__call__(
            prompts,
            steps,
            guidance_scale,
            output_type="latent",
            callback_on_step_end=callback_on_step_end,
            callback_on_step_end_tensor_inputs=callback_on_step_end_tensor_inputs,
        )


#: Loops that read their scale at each step.
BY_PROPERTY = (Known, Inferred)
#: Loops that have a copy of it.
BY_LOCAL = (BatchOfLocal, FromConditional, Rescaled, CallsOfLocal, SwitchOfLocal)
LOOPS = (*BY_PROPERTY, *BY_LOCAL)


@contextmanager
def watched(
    pipe: Any, change: Callable[[int, StrictTensor], StrictTensor] | None = None
) -> Iterator[list[int]]:
    """Rows of each call of the denoiser, below any hook; ``change(call, output)`` may replace what
    it answers."""
    rows: list[int] = []
    own = type(pipe.unet)

    class Watched(own):  # type: ignore[misc,valid-type]
        def forward(self, sample: StrictTensor, *args: Any, **kwargs: Any) -> Any:
            rows.append(int(sample.shape[0]))
            out = super().forward(sample, *args, **kwargs)
            return out if change is None else change(len(rows) - 1, out)

    pipe.unet.__class__ = Watched
    try:
        yield rows
    finally:
        pipe.unet.__class__ = own


def is_batched(pipe: Any) -> bool:
    return not isinstance(pipe, LocalFlag | Switched)


def expected_rows(pipe: Any, guided: list[bool], batch: int = 1, seen_at: int = 0) -> list[int]:
    """Rows of the calls of a run whose steps are guided or not; of a loop that is not known, the
    step in which it is looked at is computed whole."""
    if isinstance(pipe, Inferred):
        guided = [step or index == seen_at for index, step in enumerate(guided)]
    if is_batched(pipe):
        return [batch * (1 + step) for step in guided]
    return [batch for step in guided for _ in range(1 + step)]


def reference(pipe: Any, prompts: Any, guided: list[bool]) -> Array:
    """Both halves computed in every step, and the unconditional one replaced by the conditional
    one in those that are not guided."""
    conditional: list[StrictTensor] = []

    def change(call: int, out: StrictTensor) -> StrictTensor:
        if is_batched(pipe):
            first = isinstance(pipe, ConditionalFirst)
            kept = np.split(out.data, 2)[0 if first else 1]
            return out if guided[call] else StrictTensor(np.concatenate([kept, kept]))
        if call % 2 == 0:
            conditional.append(out)
            return out
        return out if guided[call // 2] else conditional[-1]

    with watched(pipe, change):
        return np.asarray(pipe(prompts, steps=len(guided)))
