"""A denoising loop and nothing else: what a pipeline does around its callback."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt


def denoising_loop(library: Any, scheduler: Any, denoise: Callable[[Any, Any], Any]) -> Any:
    """Return a pipeline of the library whose call denoises given latents, as its own pipelines do.

    Args:
        library: diffusers, or its port.
        scheduler: of the library, with its timesteps set.
        denoise: from scaled latents and a timestep to what the scheduler takes.
    """

    class DenoisingLoop(library.DiffusionPipeline):
        _callback_tensor_inputs = ["latents"]

        def __init__(self, scheduler: Any) -> None:
            super().__init__()
            self.register_modules(scheduler=scheduler)

        def __call__(
            self,
            latents: Any,
            timesteps: Any,
            callback_on_step_end: Any = None,
            callback_on_step_end_tensor_inputs: Any = ("latents",),
        ) -> Any:
            self._num_timesteps = len(timesteps)
            for i, t in enumerate(timesteps):
                scaled = latents
                if hasattr(self.scheduler, "scale_model_input"):
                    scaled = self.scheduler.scale_model_input(latents, t)
                output = denoise(scaled, t)
                latents = self.scheduler.step(output, t, latents, return_dict=False)[0]
                if callback_on_step_end is not None:
                    callback_kwargs = {"latents": latents}
                    callback_outputs = callback_on_step_end(self, i, t, callback_kwargs)
                    latents = callback_outputs.pop("latents", latents)
            return latents

        @property
        def num_timesteps(self) -> int:
            return self._num_timesteps

    return DenoisingLoop(scheduler)


class Timed:
    """A callback, with the seconds that each of its calls took on the loop's thread."""

    def __init__(self, callback: Callable[..., Any]) -> None:
        self._callback = callback
        self.seconds: list[float] = []

    def __call__(self, *arguments: Any) -> Any:
        began = time.perf_counter()
        result = self._callback(*arguments)
        self.seconds.append(time.perf_counter() - began)
        return result


def natural_latents(shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Make latents that are those of pictures, as far as a PNG encoder is concerned: amplitudes
    fall as 1/f.

    So do those of natural images (D. J. Field, J. Opt. Soc. Am. A 4, 2379, 1987).

    Returns:
        Of mean 0 and standard deviation 1 in each channel.
    """
    random = np.random.default_rng(0)
    rows, columns = np.fft.fftfreq(shape[-2]), np.fft.fftfreq(shape[-1])
    frequency = np.hypot(rows[:, None], columns[None, :])
    frequency[0, 0] = np.inf
    spectrum = np.fft.fft2(random.normal(size=shape)) / frequency
    fields = np.fft.ifft2(spectrum).real
    scaled = fields / fields.std(axis=(-2, -1), keepdims=True)
    return scaled.astype(np.float32)
