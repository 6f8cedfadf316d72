"""Toy pipelines whose loops are written in other ways than the reference backend's."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from unicb_numpy.ops import NumpyOps, StrictTensor
from unicb_numpy.pipelines import ToyPipeline

ops = NumpyOps()


class LoopPipeline(ToyPipeline):
    """What the loops share; each has a ``__call__`` of its own, as real pipelines do."""

    def start(self, prompts: list[str], steps: int, guidance_scale: float) -> Any:
        self._guidance_scale, self._interrupt = guidance_scale, False
        noise = np.random.default_rng(0).normal(size=(len(prompts), 4, 8, 8))
        timesteps = self.scheduler.set_timesteps(steps)
        self._num_timesteps = len(timesteps)
        positive = self.encode_prompt(prompts)
        negative = self.encode_prompt(["" for _ in prompts])
        return StrictTensor(noise), positive, negative, timesteps


def both(first: StrictTensor, second: StrictTensor) -> StrictTensor:
    return StrictTensor(np.concatenate([first.data, second.data]))


def guided(u: Any, c: Any, scale: float) -> StrictTensor:
    return StrictTensor(u.data + scale * (c.data - u.data))


class ConditionalFirst(LoopPipeline):
    """Also lets go at once of the dict that it gets back."""

    unicb_facts = None  # type: ignore[assignment]

    def __call__(  # type: ignore[override]
        self,
        prompts: list[str],
        steps: int = 5,
        guidance_scale: float = 5.0,
        callback_on_step_end: Any = None,
        callback_on_step_end_tensor_inputs: Any = ("latents",),
    ) -> npt.NDArray[Any]:
        latents, positive, negative, timesteps = self.start(prompts, steps, guidance_scale)
        embeds = both(positive, negative)
        for i, t in enumerate(timesteps):
            noise_pred = self.unet(both(latents, latents), t, encoder_hidden_states=embeds)
            noise_pred_text, noise_pred_uncond = ops.chunk(noise_pred, 2)
            noise_pred = guided(noise_pred_uncond, noise_pred_text, self.guidance_scale)
            latents = self.scheduler.step(noise_pred, t, latents)
            if callback_on_step_end is not None:
                latents = callback_on_step_end(self, i, t, {"latents": latents}).pop("latents")
        return latents.data


class Interleaved(LoopPipeline):
    """Rows in pairs, and code that does not look so."""

    unicb_facts = None  # type: ignore[assignment]

    def __call__(  # type: ignore[override]
        self,
        prompts: list[str],
        steps: int = 5,
        guidance_scale: float = 5.0,
        callback_on_step_end: Any = None,
        callback_on_step_end_tensor_inputs: Any = ("latents",),
    ) -> npt.NDArray[Any]:
        latents, positive, negative, timesteps = self.start(prompts, steps, guidance_scale)
        pairs = StrictTensor(np.stack([negative.data, positive.data], 1).reshape(-1, 4))
        for i, t in enumerate(timesteps):
            twice = StrictTensor(np.repeat(latents.data, 2, axis=0))
            noise_pred = self.unet(twice, t, encoder_hidden_states=pairs)
            noise_pred = StrictTensor(np.concatenate([noise_pred.data[::2], noise_pred.data[1::2]]))
            noise_pred_uncond, noise_pred_text = ops.chunk(noise_pred, 2)
            noise_pred = guided(noise_pred_uncond, noise_pred_text, self.guidance_scale)
            latents = self.scheduler.step(noise_pred, t, latents)
            if callback_on_step_end is not None:
                callback_outputs = callback_on_step_end(self, i, t, {"latents": latents})
                latents = callback_outputs.pop("latents")
        return latents.data


class Unclear(LoopPipeline):
    """Names that do not tell."""

    unicb_facts = None  # type: ignore[assignment]

    def __call__(  # type: ignore[override]
        self,
        prompts: list[str],
        steps: int = 5,
        guidance_scale: float = 5.0,
        callback_on_step_end: Any = None,
        callback_on_step_end_tensor_inputs: Any = ("latents",),
    ) -> npt.NDArray[Any]:
        latents, positive, negative, timesteps = self.start(prompts, steps, guidance_scale)
        for i, t in enumerate(timesteps):
            embeds = both(negative, positive)
            out = self.unet(both(latents, latents), t, encoder_hidden_states=embeds)
            a, b = ops.chunk(out, 2)
            latents = self.scheduler.step(guided(a, b, self.guidance_scale), t, latents)
            if callback_on_step_end is not None:
                callback_outputs = callback_on_step_end(self, i, t, {"latents": latents})
                latents = callback_outputs.pop("latents")
        return latents.data


class Switched(LoopPipeline):
    """Two calls a step, by the property."""

    unicb_facts = None  # type: ignore[assignment]

    def __call__(  # type: ignore[override]
        self,
        prompts: list[str],
        steps: int = 5,
        guidance_scale: float = 5.0,
        callback_on_step_end: Any = None,
        callback_on_step_end_tensor_inputs: Any = ("latents",),
    ) -> npt.NDArray[Any]:
        latents, positive, negative, timesteps = self.start(prompts, steps, guidance_scale)
        for i, t in enumerate(timesteps):
            noise_pred = self.unet(latents, t, encoder_hidden_states=positive)
            if self.do_classifier_free_guidance:
                noise_uncond = self.unet(latents, t, encoder_hidden_states=negative)
                noise_pred = guided(noise_uncond, noise_pred, guidance_scale)
            latents = self.scheduler.step(noise_pred, t, latents)
            if callback_on_step_end is not None:
                callback_outputs = callback_on_step_end(self, i, t, {"latents": latents})
                latents = callback_outputs.pop("latents")
        return latents.data

    @property
    def do_classifier_free_guidance(self) -> bool:
        return self._guidance_scale > 1.0


class StuckSwitch(Switched):
    """Says that its guidance is switched by the scale, and keeps a copy."""

    unicb_facts = None  # type: ignore[assignment]

    def start(self, prompts: list[str], steps: int, guidance_scale: float) -> Any:
        self._first = guidance_scale
        return super().start(prompts, steps, guidance_scale)

    @property
    def _guidance_scale(self) -> float:
        return self._first

    @_guidance_scale.setter
    def _guidance_scale(self, value: float) -> None:
        pass


class LocalFlag(LoopPipeline):
    """Two calls a step, by a local."""

    unicb_facts = None  # type: ignore[assignment]

    def __call__(  # type: ignore[override]
        self,
        prompts: list[str],
        steps: int = 5,
        guidance_scale: float = 5.0,
        callback_on_step_end: Any = None,
        callback_on_step_end_tensor_inputs: Any = ("latents",),
    ) -> npt.NDArray[Any]:
        latents, positive, negative, timesteps = self.start(prompts, steps, guidance_scale)
        do_true_cfg = guidance_scale > 1
        for i, t in enumerate(timesteps):
            noise_pred = self.unet(latents, t, encoder_hidden_states=positive)
            if do_true_cfg:
                neg_noise_pred = self.unet(latents, t, encoder_hidden_states=negative)
                noise_pred = guided(neg_noise_pred, noise_pred, guidance_scale)
            latents = self.scheduler.step(noise_pred, t, latents)
            if callback_on_step_end is not None:
                callback_outputs = callback_on_step_end(self, i, t, {"latents": latents})
                latents = callback_outputs.pop("latents")
        return latents.data


class UnconditionalFirst(LoopPipeline):
    """Two calls a step by a local, in the order that cannot be cut."""

    unicb_facts = None  # type: ignore[assignment]

    def __call__(  # type: ignore[override]
        self,
        prompts: list[str],
        steps: int = 5,
        guidance_scale: float = 5.0,
        callback_on_step_end: Any = None,
        callback_on_step_end_tensor_inputs: Any = ("latents",),
    ) -> npt.NDArray[Any]:
        latents, positive, negative, timesteps = self.start(prompts, steps, guidance_scale)
        do_cfg = guidance_scale > 1
        for i, t in enumerate(timesteps):
            if do_cfg:
                noise_uncond = self.unet(latents, t, encoder_hidden_states=negative)
            noise_pred = self.unet(latents, t, encoder_hidden_states=positive)
            if do_cfg:
                noise_pred = guided(noise_uncond, noise_pred, guidance_scale)
            latents = self.scheduler.step(noise_pred, t, latents)
            if callback_on_step_end is not None:
                callback_outputs = callback_on_step_end(self, i, t, {"latents": latents})
                latents = callback_outputs.pop("latents")
        return latents.data


class TwoPasses(LoopPipeline):
    """The whole loop twice, as FreeInit does; guidance in a batch."""

    unicb_facts = ToyPipeline.unicb_facts

    def __call__(  # type: ignore[override]
        self,
        prompts: list[str],
        steps: int = 5,
        guidance_scale: float = 5.0,
        callback_on_step_end: Any = None,
        callback_on_step_end_tensor_inputs: Any = ("latents",),
    ) -> npt.NDArray[Any]:
        latents, positive, negative, timesteps = self.start(prompts, steps, guidance_scale)
        embeds = both(negative, positive)
        for _ in range(2):
            for i, t in enumerate(timesteps):
                noise_pred = self.unet(both(latents, latents), t, encoder_hidden_states=embeds)
                noise_pred_uncond, noise_pred_text = ops.chunk(noise_pred, 2)
                noise_pred = guided(noise_pred_uncond, noise_pred_text, self.guidance_scale)
                latents = self.scheduler.step(noise_pred, t, latents)
                if callback_on_step_end is not None:
                    callback_outputs = callback_on_step_end(self, i, t, {"latents": latents})
                    latents = callback_outputs.pop("latents")
        return latents.data
