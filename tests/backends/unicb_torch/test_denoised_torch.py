"""What the denoised estimate reads and keeps, and what loops do to latents between its steps."""

from __future__ import annotations

import weakref
from types import SimpleNamespace
from typing import Any

import denoised_runs as runs
import diffusers
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from unicb import Callback, Preview, PreviewFrame, Step, bind
from unicb.latents.denoised import DenoisedEstimate
from unicb.latents.schedules import facts_for_scheduler, known_schedulers
from unicb.testing import Case
from unicb_torch import backend
from unicb_torch.harness import harness


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
    diffusers.utils.logging.set_verbosity_error()


def test_minimax_h3() -> None:
    """Velocities to the data, and timesteps that are 1 - sigma."""
    scheduler = diffusers.MiniMaxH3Scheduler()
    scheduler.set_timesteps(9)
    estimate = DenoisedEstimate(scheduler, backend.ops)
    latents = torch.randn(1, 4, 8, 8)
    for index, timestep in enumerate(scheduler.timesteps):
        said = torch.tanh(latents) - latents
        truth = latents + (1 - timestep) * said
        latents = scheduler.step(said, timestep, latents, return_dict=False)[0]
        computed = estimate.step_end(latents)
        assert (computed is None) == (index == 0)
        if computed is not None:
            torch.testing.assert_close(computed, truth, atol=1e-5, rtol=0)


def test_every_kind_of_scheduler_is_run_here() -> None:
    computed = {n for n in known_schedulers() if not facts_for_scheduler(type(n, (), {})()).noisy}
    ran = {case.name for case in (*runs.EXACT, *runs.ESTIMATED)}
    assert computed == ran | set(runs.UNSHARED)


class HostReads(TorchDispatchMode):
    """Counts what would wait for a device: reads of single numbers, and copies between devices."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.__name__.split(".")[0] in ("_local_scalar_dense", "_to_copy", "nonzero", "item"):
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize(
    "name",
    [
        "DDIMScheduler",
        "EulerDiscreteScheduler",
        "FlowMatchEulerDiscreteScheduler",
        "HeunDiscreteScheduler",
        "PNDMScheduler",
        "DEISMultistepScheduler",
        "UniPCMultistepScheduler",
    ],
)
def test_observing_reads_nothing_and_telling_once(name: str, dtype: torch.dtype) -> None:
    own = {"clip_sample": False} if name == "DDIMScheduler" else {}
    own |= {"skip_prk_steps": True} if name == "PNDMScheduler" else {}
    scheduler = getattr(diffusers, name)(**own)
    scheduler.set_timesteps(6)
    calls: list[Any] = []
    to_numpy = backend.ops.to_numpy
    ops = SimpleNamespace(to_numpy=lambda x: calls.append(x) or to_numpy(x))
    estimate = DenoisedEstimate(scheduler, ops)  # type: ignore[arg-type]
    latents = torch.randn(1, 4, 8, 8, dtype=dtype)
    first: int | None = None
    for timestep in scheduler.timesteps:
        said = latents * 0.5
        latents = scheduler.step(said, timestep, latents, return_dict=False)[0].to(dtype)
        with HostReads() as reads:
            estimate.note(latents)
            lazy = estimate.lazy()
            estimate.goes_on_with(latents)
        assert reads.found == []
        assert len(calls) == (first or 0)
        if lazy is None:
            continue
        with HostReads() as reads:
            computed = lazy.compute(*lazy.tensors)
        assert computed is None or computed.dtype == dtype
        assert first is None or reads.found == []
        first = len(calls) if first is None else first
    assert first is not None
    # UniPC's x0 needs no noise levels.
    assert len(calls) == first <= 4
    assert first > 0 or name == "UniPCMultistepScheduler"


@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", "UniPCMultistepScheduler"])
def test_one_tensor_at_most_is_kept(name: str) -> None:
    scheduler = getattr(diffusers, name)()
    scheduler.set_timesteps(6)
    estimate = DenoisedEstimate(scheduler, backend.ops)
    seen = []
    for timestep in scheduler.timesteps:
        latents = torch.randn(1, 4, 8, 8)
        scheduler.step(latents * 0.5, timestep, latents, return_dict=False)
        seen.append(weakref.ref(latents))
        estimate.step_end(latents)
    del latents
    alive = sum(ref() is not None for ref in seen[:-1])
    # UniPC itself keeps its last sample.
    assert alive == 0


@pytest.mark.parametrize("name", ["DDIMScheduler", "EulerDiscreteScheduler", "PNDMScheduler"])
def test_the_known_part_of_an_inpainted_picture(name: str) -> None:
    """After each step the loop overwrites it with the original, noised with the same noise. So
    two latents tell the original itself; a kept output, what the model made of it.
    """
    own = {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}
    own = {} if name == "EulerDiscreteScheduler" else own
    own = {"skip_prk_steps": True, "steps_offset": 1} if name == "PNDMScheduler" else own
    scheduler = getattr(diffusers, name)(**runs.STABLE_DIFFUSION, **own)
    scheduler.set_timesteps(10)
    scheduler.set_begin_index(0) if hasattr(scheduler, "set_begin_index") else None
    original, noise = torch.randn(2, 1, 4, 8, 8)
    latents = noise * scheduler.init_noise_sigma
    estimate = DenoisedEstimate(scheduler, backend.ops)
    errors = []
    for index, timestep in enumerate(scheduler.timesteps):
        said = scheduler.scale_model_input(latents, timestep) + 0.1 * torch.tanh(latents)
        latents = scheduler.step(said, timestep, latents, return_dict=False)[0]
        following = scheduler.timesteps[index + 1 : index + 2]
        known = scheduler.add_noise(original, noise, following) if len(following) else original
        latents = torch.cat([known[..., :4], latents[..., 4:]], dim=-1)
        computed = estimate.step_end(latents)
        if computed is not None:
            errors.append(float((computed - original)[..., :4].abs().max()))
    if name == "PNDMScheduler":
        assert max(errors) > 0.1
    else:
        # The last overwriting brings the clean original, while the DDIM of Stable Diffusion ends
        # at a noise of 0.03: a little of the noise comes back in the last estimate.
        assert max(errors[:-1]) < 1e-4
        assert errors[-1] < (0.5 if name == "DDIMScheduler" else 1e-4)


@pytest.mark.parametrize(
    ("eta", "kinds"),
    [(0.0, ["none", "exact", "exact", "exact"]), (0.3, ["none"] * 4), (1.0, ["none"] * 4)],
)
def test_fresh_noise_that_the_pipelines_call_asks_for(eta: float, kinds: list[str]) -> None:
    """The scheduler does not know eta; the loop's locals do."""
    pipe, case = harness.build("text2img"), Case("text2img")
    pipe.scheduler = diffusers.DDIMScheduler(clip_sample=False)
    found: list[str] = []
    frames: list[PreviewFrame] = []

    class Watch(Callback):
        tensors = ("latents",)

        def on_step_end(self, step: Step) -> None:
            found.append(step.denoised_kind)
            assert (step.denoised() is None) == (found[-1] == "none")

    pipe(**harness.arguments(case), eta=eta, **bind(pipe, Watch(), Preview(frames)))
    assert found == kinds
    assert [frame.source for frame in frames] == [
        "exact" if kind == "exact" else "noisy" for kind in kinds
    ]
