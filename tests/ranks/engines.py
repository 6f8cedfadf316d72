"""Tiny pipelines whose denoiser is spread over the ranks, by the engines of torch and diffusers.

diffusers asks for an accelerator, and refuses a CPU. Here these checks are replaced by others that
take it; nothing else of it is.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import diffusers
import diffusers.hooks.tensor_parallel as tensor_parallel
import torch
import torch.distributed as dist
from diffusers import ContextParallelConfig, TensorParallelConfig
from diffusers.models._modeling_parallel import ParallelConfig
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from zoo.entry import Entry, Request
from zoo.families import entries
from zoo.framework import Torch

STEPS = 6


def _resolved_on_a_cpu(self: Any, config: Any) -> Any:
    """What diffusers does in this method, without its question for an accelerator."""
    if isinstance(config, ContextParallelConfig):
        config = ParallelConfig(context_parallel_config=config)
    elif isinstance(config, TensorParallelConfig):
        config = ParallelConfig(tensor_parallel_config=config)
    context, tensor = config.context_parallel_config, config.tensor_parallel_config
    if context is not None:
        mesh = context.mesh or init_device_mesh(
            "cpu", context.mesh_shape, mesh_dim_names=context.mesh_dim_names
        )
    else:
        mesh = tensor.mesh or init_device_mesh("cpu", (tensor.tp_degree,), mesh_dim_names=("tp",))
    rank, size = dist.get_rank(), dist.get_world_size()
    config.setup(rank, size, torch.device("cpu"), mesh=mesh)
    self._parallel_config = config
    return config


def allow_cpu() -> None:
    """Have diffusers spread models over CPUs."""
    diffusers.ModelMixin._resolve_parallel_config = _resolved_on_a_cpu
    tensor_parallel._SUPPORTED_TP_DEVICES = (*tensor_parallel._SUPPORTED_TP_DEVICES, "cpu")


def entry(name: str, variant: str = "") -> Entry:
    return next(each for each in entries() if (each.name, each.variant) == (name, variant))


FLUX, WAN = ("FluxPipeline",), ("WanPipeline",)
WAN_HEUN = ("WanPipeline", "scheduler of order 2")
NO_FLAG = ("StableDiffusionXLInstructPix2PixPipeline",)


def ulysses(model: Any, size: int) -> None:
    model.enable_parallelism(config=ContextParallelConfig(ulysses_degree=size))


def ring(model: Any, size: int) -> None:
    model.enable_parallelism(config=ContextParallelConfig(ring_degree=size))


def tensor(model: Any, size: int) -> None:
    model.enable_parallelism(config=TensorParallelConfig(tp_degree=size))


def fsdp2(model: Any, size: int) -> None:
    mesh = init_device_mesh("cpu", (size,))
    for name in ("blocks", "transformer_blocks", "single_transformer_blocks", "down_blocks"):
        for block in getattr(model, name, ()):
            fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


def nothing(model: Any, size: int) -> None:
    """The denoiser knows nothing of other ranks: what stands for an engine of somebody else's."""


ENGINES: dict[str, tuple[tuple[str, ...], Callable[[Any, int], None]]] = {
    "flux_ulysses": (FLUX, ulysses),
    "wan_ulysses": (WAN, ulysses),
    "wan_heun_ulysses": (WAN_HEUN, ulysses),
    "flux_tensor": (FLUX, tensor),
    "flux_fsdp2": (FLUX, fsdp2),
    "wan_fsdp2": (WAN, fsdp2),
    "no_flag_fsdp2": (NO_FLAG, fsdp2),
    "flux_alone": (FLUX, nothing),
}


class Engine:
    """A pipeline spread over ranks, and the same without.

    Args:
        name: of those above.
        size: number of the ranks.
        spread: what spreads its denoiser, in the place of what belongs to the name.
    """

    def __init__(
        self, name: str, size: int, spread: Callable[[Any, int], None] | None = None
    ) -> None:
        known, usual = ENGINES[name]
        self.entry = entry(*known)
        self.alone, self.pipeline = self._build(), self._build()
        (spread or usual)(denoiser(self.pipeline), size)

    def _build(self) -> Any:
        torch.manual_seed(7)
        self.fx = Torch()
        self.fx.seed()
        return self.entry.build(self.fx)

    def arguments(self, steps: int = STEPS) -> dict[str, Any]:
        return self.entry.arguments(self.fx, self.alone, Request(steps=steps))


def denoiser(pipeline: Any) -> Any:
    return getattr(pipeline, "transformer", None) or pipeline.unet


def latents(output: Any) -> Any:
    """Of what a pipeline returns, the latents, on the host."""
    return torch.as_tensor(output[0]).detach().cpu().numpy()


def shared_names() -> list[str]:
    importlib.import_module("zoo.families")
    return [name for name in ENGINES if name != "flux_alone"]
