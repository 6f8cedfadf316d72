"""Toy pipelines whose loops call no step-end callback: they step their scheduler alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from unicb_numpy.ops import NumpyOps, StrictTensor
from unicb_numpy.pipelines import ToyPipeline, ToyScheduler

OPS = NumpyOps()


class Output(dict[str, Any]):
    """What diffusers' schedulers return: a dict with attributes, made anew by its keywords."""

    @property
    def prev_sample(self) -> StrictTensor:
        return self["prev_sample"]  # type: ignore[no-any-return]

    def __getitem__(self, key: Any) -> Any:
        return [*self.values()][key] if isinstance(key, int) else super().__getitem__(key)


class OnDevice:
    """A number that is on a device: to read it would wait for that."""

    def __init__(self, value: float) -> None:
        self.value = value

    def __float__(self) -> float:
        raise AssertionError("a number on the device was read")

    __int__ = __bool__ = item = __array__ = __eq__ = __lt__ = __float__  # type: ignore[assignment]


class Timesteps(Sequence[Any]):
    """Timesteps on a device."""

    def __init__(self, items: Sequence[Any]) -> None:
        self._items = list(items)

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, at: Any) -> Any:
        return Timesteps(self._items[at]) if isinstance(at, slice) else self._items[at]


class Scheduler(ToyScheduler):
    """The toy's, which keeps its timesteps, and returns what ``made`` says."""

    def __init__(self, order: int = 1, made: str = "mapping", on_device: bool = False) -> None:
        super().__init__(order)
        self.made, self.on_device = made, on_device
        self.calls = 0

    def set_timesteps(self, n: int) -> Any:
        found = super().set_timesteps(n)
        self.timesteps = Timesteps([OnDevice(t) for t in found]) if self.on_device else found
        return self.timesteps

    def step(  # type: ignore[override]
        self, model_output: StrictTensor, timestep: Any, sample: StrictTensor, eta: float = 0.0
    ) -> Any:
        self.calls += 1
        t = timestep.value if isinstance(timestep, OnDevice) else timestep
        made = super().step(model_output, t, sample)
        x0 = StrictTensor(sample.data * 0)
        if self.made == "mapping":
            return Output(prev_sample=made, pred_original_sample=x0)
        if self.made == "object":
            return SimpleNamespace(prev_sample=made, pred_original_sample=x0)
        return (made, x0) if self.made == "tuple" else made


class ScheduledPipeline(ToyPipeline):
    """The toy's loop, without a callback; for loops of its kind, :meth:`begin` and :meth:`noise`
    have what is around the steps."""

    unicb_facts = None
    _callback_tensor_inputs: Any = None
    skipped = 0

    def __init__(self, order: int = 1, made: str = "mapping", on_device: bool = False) -> None:
        super().__init__(order)
        self.scheduler: Scheduler = Scheduler(order, made, on_device)

    def begin(self, prompt: str | Sequence[str], seed: int, guidance_scale: float) -> Any:
        """The first latents, and the embeddings."""
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        embeds = self.encode_prompt(prompts)
        if guidance_scale > 1:
            both = [self.encode_prompt([""] * len(prompts)).data, embeds.data]
            embeds = StrictTensor(np.concatenate(both))
        noise = np.random.default_rng(seed).normal(size=(len(prompts), 4, 8, 8))
        return StrictTensor(noise.astype(np.float32)), embeds

    def progress_bar(self, items: Any) -> Iterator[Any]:
        yield from items

    def __call__(
        self,
        prompt: str | Sequence[str],
        num_inference_steps: int = 10,
        guidance_scale: float = 5.0,
        seed: int = 0,
    ) -> Any:
        latents, embeds = self.begin(prompt, seed, guidance_scale)
        timesteps = self.scheduler.set_timesteps(num_inference_steps)[self.skipped :]
        for _i, t in enumerate(self.progress_bar(timesteps)):
            guided = guidance_scale > 1
            model_input = StrictTensor(np.concatenate([latents.data] * 2)) if guided else latents
            at = getattr(t, "value", t)
            noise_pred = self.unet(model_input, at, encoder_hidden_states=embeds)
            if guided:
                noise_pred_uncond, noise_pred_text = np.split(noise_pred.data, 2)
                noise_pred = StrictTensor(
                    noise_pred_uncond + guidance_scale * (noise_pred_text - noise_pred_uncond)
                )
            latents = self.scheduler.step(noise_pred, t, latents, eta=0.0).prev_sample
        return latents.data


class TupledPipeline(ScheduledPipeline):
    """It takes the step's result as a tuple; where it takes one step, another part of it."""

    def __call__(self, prompt: str, num_inference_steps: int = 10, seed: int = 0) -> Any:
        latents, embeds = self.begin(prompt, seed, 1.0)
        timesteps = self.scheduler.set_timesteps(num_inference_steps)
        for t in timesteps:
            noise_pred = self.unet(latents, t, encoder_hidden_states=embeds)
            if num_inference_steps == 1:
                latents = self.scheduler.step(noise_pred, t, latents)[1]
            else:
                latents = self.scheduler.step(noise_pred, t, latents)[0]
        return latents.data


class BarePipeline(ScheduledPipeline):
    """Its scheduler returns a tensor, and its loop goes over the scheduler's own timesteps."""

    def __call__(self, prompt: str, num_inference_steps: int = 10, seed: int = 0) -> Any:
        latents, embeds = self.begin(prompt, seed, 1.0)
        self.scheduler.set_timesteps(num_inference_steps)
        for t in self.progress_bar(self.scheduler.timesteps):
            noise_pred = self.unet(latents, t, encoder_hidden_states=embeds)
            latents = self.scheduler.step(noise_pred, timestep=t, sample=latents)
        return latents.data


class DoubledPipeline(ScheduledPipeline):
    """It has each row of its latents twice, as DiT has with guidance: the second half is dropped
    at each round."""

    def __call__(
        self,
        prompt: str | Sequence[str],
        num_inference_steps: int = 10,
        guidance_scale: float = 5.0,
    ) -> Any:
        latents, embeds = self.begin(prompt, 0, guidance_scale)
        if guidance_scale > 1:
            latents = OPS.concat([latents, latents])
        timesteps = self.scheduler.set_timesteps(num_inference_steps)
        for t in timesteps:
            if guidance_scale > 1:
                half = latents[: latents.shape[0] // 2]
                latents = OPS.concat([half, half])
            noise_pred = self.unet(latents, t, encoder_hidden_states=embeds)
            if guidance_scale > 1:
                noise_pred_uncond, noise_pred_text = np.split(noise_pred.data, 2)
                guided = noise_pred_uncond + guidance_scale * (noise_pred_text - noise_pred_uncond)
                noise_pred = StrictTensor(np.concatenate([guided, guided]))
            latents = self.scheduler.step(noise_pred, t, latents).prev_sample
        return latents.data


class EnsemblePipeline(ScheduledPipeline):
    """It denoises several times, as Marigold does for an ensemble."""

    def __call__(self, prompt: str, num_inference_steps: int = 4, members: int = 3) -> Any:
        found = []
        for seed in range(members):
            sample, embeds = self.begin(prompt, seed, 1.0)
            self.scheduler.set_timesteps(num_inference_steps)
            for t in self.scheduler.timesteps:
                noise_pred = self.unet(sample, t, encoder_hidden_states=embeds)
                sample = self.scheduler.step(noise_pred, t, sample).prev_sample
            found.append(sample.data)
        return np.concatenate(found)


class PuttingBackPipeline(ScheduledPipeline):
    """It puts a picture back outside of a mask after each step, as inpainting does."""

    def __init__(self, order: int = 1) -> None:
        super().__init__(order)
        kept = np.random.default_rng(7).normal(size=(1, 4, 8, 8))
        self.picture = StrictTensor(kept.astype(np.float32))
        self.mask = StrictTensor(np.zeros((1, 1, 8, 8), np.float32))
        self.mask.data[..., 2:6, 2:6] = 1.0

    def __call__(self, prompt: str, seed: int = 0) -> Any:
        latents, embeds = self.begin(prompt, seed, 1.0)
        mask, picture = self.mask, self.picture
        timesteps = self.scheduler.set_timesteps(6)
        for i, t in enumerate(timesteps):
            noise_pred = self.unet(latents, t, encoder_hidden_states=embeds)
            latents = self.scheduler.step(noise_pred, t, latents).prev_sample
            put_back = picture
            if i < 2:
                put_back = picture * 2.0
            latents = put_back * (1 - mask) + mask * latents
        return latents.data


class FramesPipeline(ScheduledPipeline):
    """It has frames as rows for the step, as text-to-video has."""

    def __call__(self, prompt: str, guidance_scale: float = 1.0, seed: int = 0) -> Any:
        latents, embeds = self.begin(prompt, seed, guidance_scale)
        timesteps = self.scheduler.set_timesteps(6)
        for t in timesteps:
            guided = guidance_scale > 1
            model_input = StrictTensor(np.concatenate([latents.data] * 2)) if guided else latents
            noise_pred = self.unet(model_input, t, encoder_hidden_states=embeds)
            if guided:
                noise_pred_uncond, noise_pred_text = np.split(noise_pred.data, 2)
                noise_pred = StrictTensor(
                    noise_pred_uncond + guidance_scale * (noise_pred_text - noise_pred_uncond)
                )
            rows, channels, height, width = latents.shape
            latents = latents.swapaxes(1, 2).reshape((rows * height, channels, width))
            noise_pred = noise_pred.swapaxes(1, 2).reshape((rows * height, channels, width))
            latents = self.scheduler.step(noise_pred, t, latents).prev_sample
            latents = latents[None, :].reshape((rows, height, channels, width)).swapaxes(1, 2)
        return latents.data
