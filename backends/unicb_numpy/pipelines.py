"""Build a toy pipeline that honours the frameworks' loop contract, small enough to read at once."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from unicb import PipelineFacts
from unicb_numpy.ops import StrictTensor


class ToyUNet:
    def __call__(self, *args: Any, **kwargs: Any) -> StrictTensor:
        return self.forward(*args, **kwargs)

    def forward(
        self, sample: StrictTensor, timestep: float, encoder_hidden_states: StrictTensor
    ) -> StrictTensor:
        """Predict the noise in ``sample [rows, 4, 8, 8]`` given embeddings ``[rows, 4]``."""
        embeds = encoder_hidden_states.data[:, :, None, None]
        return StrictTensor(np.tanh(sample.data * (0.5 + timestep / 1000)) - embeds * 0.3)


class ToyScheduler:
    """Step by Euler's method (order 1) or Heun's (order 2, two half steps a step but for the
    last)."""

    def __init__(self, order: int = 1) -> None:
        self.order = order

    @property
    def state_in_first_order(self) -> bool:
        """Return whether the next call of :meth:`step` is the first of two halves, or whole."""
        return self.half is None

    def set_timesteps(self, n: int) -> npt.NDArray[np.float64]:
        self.sigmas = np.linspace(1.0, 0.0, n + 1)
        steps = 1000 * self.sigmas[:-1]
        self.half: tuple[npt.NDArray[Any], npt.NDArray[Any]] | None = None
        return steps if self.order == 1 else np.concatenate([steps[:1], np.repeat(steps[1:], 2)])

    def step(self, noise: StrictTensor, timestep: float, sample: StrictTensor) -> StrictTensor:
        delta = (self.sigmas[1] - self.sigmas[0]) * noise.data
        if self.half is None:
            is_whole = self.order == 1 or timestep <= 1000 * self.sigmas[-2]
            self.half = None if is_whole else (sample.data, delta)
            return StrictTensor(sample.data + delta)
        (start, first), self.half = self.half, None
        return StrictTensor(start + (first + delta) / 2)


class ToyPipeline:
    """Make pictures ``[rows, 8, 8, 4]`` of text, in the loop that diffusers' pipelines share."""

    unicb_facts = PipelineFacts(source="this file", denoisers=("unet",), latents="sd")
    _callback_tensor_inputs = ("latents", "prompt_embeds", "negative_prompt_embeds")

    def __init__(self, order: int = 1, dtype: str = "float32") -> None:
        self.unet, self.scheduler, self.dtype = ToyUNet(), ToyScheduler(order), dtype

    guidance_scale = property(attrgetter("_guidance_scale"))
    num_timesteps = property(attrgetter("_num_timesteps"))
    interrupt = property(attrgetter("_interrupt"))

    @property
    def do_classifier_free_guidance(self) -> bool:
        return self._guidance_scale > 1

    def encode_prompt(self, prompts: Sequence[str]) -> StrictTensor:
        rows = [np.random.default_rng(zlib.crc32(p.encode())).normal(size=4) for p in prompts]
        return StrictTensor(np.array(rows, dtype=self.dtype))

    def __call__(
        self,
        prompt: str | Sequence[str],
        num_inference_steps: int = 10,
        guidance_scale: float = 5.0,
        num_images_per_prompt: int = 1,
        seed: int = 0,
        output_type: str = "np",
        callback_on_step_end: Callable[..., dict[str, Any]] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> npt.NDArray[Any]:
        if unknown := set(callback_on_step_end_tensor_inputs) - {*self._callback_tensor_inputs}:
            raise ValueError(f"callback_on_step_end_tensor_inputs: {unknown} are not offered")
        self._guidance_scale, self._interrupt = guidance_scale, False
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        prompts = [text for text in prompts for _ in range(num_images_per_prompt)]
        prompt_embeds = self.encode_prompt(prompts)
        negative_prompt_embeds = None
        if self.do_classifier_free_guidance:
            negative_prompt_embeds = self.encode_prompt([""] * len(prompts))
            both = [negative_prompt_embeds.data, prompt_embeds.data]
            prompt_embeds = StrictTensor(np.concatenate(both))
        noise = np.random.default_rng(seed).normal(size=(len(prompts), 4, 8, 8))
        latents = StrictTensor(noise.astype(self.dtype))
        timesteps = self.scheduler.set_timesteps(num_inference_steps)
        self._num_timesteps = len(timesteps)
        for i, t in enumerate(timesteps):
            if self.interrupt:
                continue
            guided = self.do_classifier_free_guidance
            model_input = StrictTensor(np.concatenate([latents.data] * 2)) if guided else latents
            noise_pred = self.unet(model_input, t, encoder_hidden_states=prompt_embeds)
            if guided:
                uncond, cond = np.split(noise_pred.data, 2)
                noise_pred = StrictTensor(uncond + self.guidance_scale * (cond - uncond))
            stepped = self.scheduler.step(noise_pred, t, latents)
            latents = StrictTensor(stepped.data.astype(self.dtype))
            if callback_on_step_end is not None:
                local = locals()
                tensors = {name: local[name] for name in callback_on_step_end_tensor_inputs}
                callback_outputs = callback_on_step_end(self, i, t, tensors)
                latents = callback_outputs.pop("latents", latents)
                prompt_embeds = callback_outputs.pop("prompt_embeds", prompt_embeds)
                negative = callback_outputs.pop("negative_prompt_embeds", negative_prompt_embeds)
                negative_prompt_embeds = negative
        if output_type == "latent":
            return latents.data
        return np.clip(latents.data / 4 + 0.5, 0, 1).transpose(0, 2, 3, 1)
