"""A small text-to-image pipeline on JAX, in the loop that diffusers' pipelines share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from unicb import PipelineFacts

CHANNELS, SIZE, WIDTH = 4, 8, 16


@jax.jit
def predict_noise(
    weights: dict[str, jax.Array], sample: jax.Array, timestep: jax.Array, embeds: jax.Array
) -> jax.Array:
    """Apply two convolutions with the text in between. Compiled once for each number of rows."""
    hidden = jax.lax.conv(sample, weights["into"], (1, 1), "SAME")
    text = embeds @ weights["text"] + jnp.cos(timestep * weights["time"])
    hidden = jnp.tanh(hidden + text[:, :, None, None])
    return jax.lax.conv(hidden, weights["out"], (1, 1), "SAME")


class UNet:
    """Random weights, and a method to call them with, which is where hooks go."""

    def __init__(self, seed: int) -> None:
        shapes = {
            "into": (WIDTH, CHANNELS, 3, 3),
            "out": (CHANNELS, WIDTH, 3, 3),
            "text": (WIDTH, WIDTH),
            "time": (WIDTH,),
        }
        keys = jax.random.split(jax.random.key(seed), len(shapes))
        self.weights = {
            name: jax.random.normal(key, shape, jnp.float32) / 4
            for key, (name, shape) in zip(keys, shapes.items(), strict=True)
        }

    def __call__(self, *args: Any, **kwargs: Any) -> jax.Array:
        return self.forward(*args, **kwargs)

    def forward(
        self, sample: jax.Array, timestep: float, encoder_hidden_states: jax.Array
    ) -> jax.Array:
        """Predict the noise in ``sample [rows, 4, 8, 8]`` given embeddings ``[rows, 16]``."""
        noise: jax.Array = predict_noise(self.weights, sample, timestep, encoder_hidden_states)
        return noise


class Scheduler:
    """DDIM, without noise of its own, on a cosine schedule."""

    def set_timesteps(self, n: int) -> list[float]:
        self.stride = 1000 / n
        return [1000 - i * self.stride for i in range(n)]

    def step(self, noise: jax.Array, timestep: float, sample: jax.Array) -> jax.Array:
        signal, spread = self._levels(timestep)
        next_signal, next_spread = self._levels(timestep - self.stride)
        clean = (sample - spread * noise) / signal
        return next_signal * clean + next_spread * noise

    def _levels(self, timestep: float) -> tuple[float, float]:
        angle = timestep / 1000 * 1.5  # not quite pi/2, where no signal would be left
        return float(np.cos(angle)), float(np.sin(angle))


class JaxPipeline:
    """Pictures ``[rows, 8, 8, 4]`` from words. ``unicb_facts`` tells unicb how it guides."""

    unicb_facts = PipelineFacts(source="unicb_jax/pipelines.py", denoisers=("unet",), latents="sd")
    _callback_tensor_inputs = ("latents", "prompt_embeds", "negative_prompt_embeds")

    def __init__(self, seed: int = 0) -> None:
        self.unet, self.scheduler = UNet(seed), Scheduler()
        letters = np.random.default_rng(seed).normal(size=(256, WIDTH))
        self.letters = letters.astype(np.float32)

    @property
    def guidance_scale(self) -> float:
        return self._guidance_scale

    @property
    def do_classifier_free_guidance(self) -> bool:
        return self._guidance_scale > 1

    @property
    def num_timesteps(self) -> int:
        return self._num_timesteps

    @property
    def interrupt(self) -> bool:
        return self._interrupt

    def encode(self, prompts: Sequence[str]) -> jax.Array:
        """Sum the embeddings of its letters for each prompt; zeros for an empty one."""
        return jnp.array([self.letters[list(text.encode())].sum(axis=0) for text in prompts])

    def double(self, uncond: jax.Array, cond: jax.Array) -> jax.Array:
        """Return the rows of a guided batch, in the order that ``unicb_facts`` tells."""
        return jnp.concatenate([uncond, cond])

    def halves(self, noise: jax.Array) -> Iterator[jax.Array]:
        """Yield the unconditional and the conditional rows of what the denoiser answers."""
        return iter(jnp.split(noise, 2))

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
    ) -> npt.NDArray[np.float32]:
        self._guidance_scale, self._interrupt = guidance_scale, False
        prompts = [prompt] if isinstance(prompt, str) else prompt
        prompts = [text for text in prompts for _ in range(num_images_per_prompt)]
        prompt_embeds = self.encode(prompts)
        negative_prompt_embeds = None
        if self.do_classifier_free_guidance:
            negative_prompt_embeds = self.encode([""] * len(prompts))
            prompt_embeds = self.double(negative_prompt_embeds, prompt_embeds)
        shape = (len(prompts), CHANNELS, SIZE, SIZE)
        latents = jax.random.normal(jax.random.key(seed), shape, jnp.float32)
        timesteps = self.scheduler.set_timesteps(num_inference_steps)
        self._num_timesteps = len(timesteps)
        for i, t in enumerate(timesteps):
            if self.interrupt:
                continue
            if self.do_classifier_free_guidance:
                both = self.double(latents, latents)
                noise = self.unet(both, t, encoder_hidden_states=prompt_embeds)
                uncond, cond = self.halves(noise)
                noise = uncond + self.guidance_scale * (cond - uncond)
            else:
                noise = self.unet(latents, t, encoder_hidden_states=prompt_embeds)
            latents = self.scheduler.step(noise, t, latents)
            if callback_on_step_end is not None:
                local = locals()
                tensors = {name: local[name] for name in callback_on_step_end_tensor_inputs}
                callback_outputs = callback_on_step_end(self, i, t, tensors)
                latents = callback_outputs.pop("latents", latents)
                prompt_embeds = callback_outputs.pop("prompt_embeds", prompt_embeds)
                negative_prompt_embeds = callback_outputs.pop(
                    "negative_prompt_embeds", negative_prompt_embeds
                )
        if output_type == "latent":
            return np.array(latents)
        return np.array(jnp.clip(latents / 4 + 0.5, 0, 1).transpose(0, 2, 3, 1))


class ConditionalFirstPipeline(JaxPipeline):
    """The same with the conditional rows in front, as some pipelines have them."""

    unicb_facts = PipelineFacts(
        source="unicb_jax/pipelines.py",
        denoisers=("unet",),
        order=("conditional", "unconditional"),
        latents="sd",
    )

    def double(self, uncond: jax.Array, cond: jax.Array) -> jax.Array:
        return jnp.concatenate([cond, uncond])

    def halves(self, noise: jax.Array) -> Iterator[jax.Array]:
        return reversed(jnp.split(noise, 2))
