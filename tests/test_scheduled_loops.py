"""What a loop without a callback may do for its steps to be seen from its scheduler's calls."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scheduled import OPS, ScheduledPipeline, Scheduler

from unicb import UnsupportedPipelineError, bind


class Blends(ScheduledPipeline):
    def __call__(self, prompt: str, mask: float = 0.5) -> Any:
        latents, embeds = self.begin(prompt, 0, 1.0)
        for t in self.scheduler.set_timesteps(4):
            noise_pred = self.unet(latents, t, encoder_hidden_states=embeds)
            latents = self.scheduler.step(noise_pred, t, latents).prev_sample
            latents = latents * mask
        return latents.data


class Writes(ScheduledPipeline):
    def __call__(self, prompt: str) -> Any:
        latents, embeds = self.begin(prompt, 0, 1.0)
        timesteps = self.scheduler.set_timesteps(4)
        for t in timesteps:
            noise_pred = self.unet(latents, t, encoder_hidden_states=embeds)
            latents = self.scheduler.step(noise_pred, t, latents).prev_sample
            latents[0] = 0.0
        return latents.data


class InPlace(ScheduledPipeline):
    def __call__(self, prompt: str) -> Any:
        latents, embeds = self.begin(prompt, 0, 1.0)
        timesteps = self.scheduler.set_timesteps(4)
        for t in timesteps:
            noise_pred = self.unet(latents, t, encoder_hidden_states=embeds)
            latents = self.scheduler.step(noise_pred, t, latents).prev_sample
            latents.mul_(0.5)  # type: ignore[attr-defined]
        return latents.data


class Reshapes(ScheduledPipeline):
    def __call__(self, prompt: str) -> Any:
        latents, embeds = self.begin(prompt, 0, 1.0)
        timesteps = self.scheduler.set_timesteps(4)
        for t in timesteps:
            noise_pred = self.unet(latents, t, encoder_hidden_states=embeds)
            flat = latents.reshape((1, -1))
            latents = self.scheduler.step(noise_pred, t, flat).prev_sample
        return latents.data


class Twice(ScheduledPipeline):
    def __call__(self, prompt: str) -> Any:
        latents, embeds = self.begin(prompt, 0, 1.0)
        timesteps = self.scheduler.set_timesteps(4)
        for t in timesteps:
            noise_pred = self.unet(latents, t, encoder_hidden_states=embeds)
            latents = self.scheduler.step(noise_pred, t, latents).prev_sample
            latents = self.scheduler.step(noise_pred, t, latents).prev_sample
        return latents.data


class Sometimes(ScheduledPipeline):
    def __call__(self, prompt: str) -> Any:
        latents, embeds = self.begin(prompt, 0, 1.0)
        timesteps = self.scheduler.set_timesteps(4)
        for i, t in enumerate(timesteps):
            noise_pred = self.unet(latents, t, encoder_hidden_states=embeds)
            if i > 1:
                latents = self.scheduler.step(noise_pred, t, latents).prev_sample
        return latents.data


class Leaves(ScheduledPipeline):
    def __call__(self, prompt: str) -> Any:
        latents, embeds = self.begin(prompt, 0, 1.0)
        timesteps = self.scheduler.set_timesteps(4)
        for i, t in enumerate(timesteps):
            if i < 1:
                continue
            noise_pred = self.unet(latents, t, encoder_hidden_states=embeds)
            latents = self.scheduler.step(noise_pred, t, latents).prev_sample
        return latents.data


class Several(ScheduledPipeline):
    prior_scheduler: Any = None

    def __call__(self, prompt: str) -> Any:
        latents, embeds = self.begin(prompt, 0, 1.0)
        timesteps = self.scheduler.set_timesteps(4)
        for t in timesteps:
            embeds = self.prior_scheduler.step(embeds, t, embeds).prev_sample
            latents = self.scheduler.step(embeds, t, latents).prev_sample
        return latents.data


class PriorFirst(ScheduledPipeline):
    """Has a loop before, with a scheduler of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.prior_scheduler = Scheduler()

    def __call__(self, prompt: str) -> Any:
        prior_latents, _ = self.begin(prompt, 0, 1.0)
        for t in self.prior_scheduler.set_timesteps(3):
            prior_latents = self.prior_scheduler.step(prior_latents, t, prior_latents).prev_sample
        latents = prior_latents
        timesteps = self.scheduler.set_timesteps(4)
        for t in timesteps:
            latents = self.scheduler.step(latents, t, latents).prev_sample
        return latents.data


class Exchanges(ScheduledPipeline):
    def __call__(self, prompt: str) -> Any:
        latents, embeds = self.begin(prompt, 0, 1.0)
        self.scheduler = Scheduler()
        timesteps = self.scheduler.set_timesteps(4)
        for t in timesteps:
            latents = self.scheduler.step(embeds, t, latents).prev_sample
        return latents.data


class NoStep(ScheduledPipeline):
    def __call__(self, prompt: str) -> Any:
        return self.begin(prompt, 0, 1.0)


class Counts(ScheduledPipeline):
    def __call__(self, prompt: str) -> Any:
        latents, embeds = self.begin(prompt, 0, 1.0)
        self.scheduler.set_timesteps(4)
        for i in range(4):
            t = self.scheduler.timesteps[i]
            latents = self.scheduler.step(embeds, t, latents).prev_sample
        return latents.data


class Keeps(ScheduledPipeline):
    def __call__(self, prompt: str) -> Any:
        latents, embeds = self.begin(prompt, 0, 1.0)
        timesteps = self.scheduler.set_timesteps(4)
        for t in timesteps:
            out = self.scheduler.step(embeds, t, latents)
            latents = out.prev_sample
        return latents.data


class Joins(ScheduledPipeline):
    def __call__(self, prompt: str) -> Any:
        latents, embeds = self.begin(prompt, 0, 1.0)
        timesteps = self.scheduler.set_timesteps(4)
        for t in timesteps:
            half = latents[: len(latents) // 2]
            latents = OPS.concat([half, embeds])
            latents = self.scheduler.step(embeds, t, latents).prev_sample
        return latents.data


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (Blends, "its loop changes latents otherwise than by scheduler.step: `latents = latents"),
        (Writes, "its loop changes latents otherwise"),
        (InPlace, r"its loop changes latents otherwise.*latents\.mul_\(0\.5\)"),
        (Reshapes, "is not what it took from the last one"),
        (Twice, "exactly once"),
        (Sometimes, "exactly once"),
        (Leaves, "leave a round before its end"),
        (Several, "its loop steps with prior_scheduler and scheduler"),
        (Exchanges, "exchanges its scheduler"),
        (NoStep, "no loop that calls self.scheduler.step"),
        (Counts, r"goes over `range\(4\)`"),
        (Joins, r"changes latents otherwise.*concat\(\[half, embeds\]\)"),
        (Keeps, "is not what it took from the last one"),
    ],
)
def test_what_would_be_wrong_is_refused(kind: type[Any], why: str) -> None:
    with pytest.raises(UnsupportedPipelineError, match=why):
        bind(kind())


def test_the_loop_of_the_scheduler_called_so_is_noticed() -> None:
    seen: list[Any] = []

    def note(pipe: Any, index: int, timestep: Any, tensors: Any) -> Any:
        seen.append((index, pipe.prior_scheduler.calls, pipe.scheduler.calls))
        return {}

    plain = PriorFirst()("a lighthouse")
    latents = bind(PriorFirst(), note)("a lighthouse")
    assert seen == [(i, 3, i + 1) for i in range(4)]
    np.testing.assert_array_equal(latents, plain)


def test_class_without_readable_code() -> None:
    namespace: dict[str, Any] = {"ScheduledPipeline": ScheduledPipeline}
    exec(
        "class Hidden(ScheduledPipeline):\n"
        "    def __call__(self, prompt):\n"
        "        for t in self.scheduler.timesteps: pass\n",
        namespace,
    )
    with pytest.raises(UnsupportedPipelineError, match="its code cannot be read"):
        bind(namespace["Hidden"]())
