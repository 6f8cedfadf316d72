"""Build pipelines of the libraries with random weights, in the shapes of models that people use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from _frameworks import Framework

from unicb.backend import backend_for

#: Tokens of a prompt, as CLIP has them.
TOKENS = 77

_BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


@dataclass(frozen=True)
class Untrained:
    """A pipeline with random weights, and what its call takes.

    Attributes:
        pipeline: has no text encoder, autoencoder or progress bar.
        denoiser: its UNet or transformer.
        arguments: embeddings, latents, height and width.
        scale: the argument for the guidance scale; at 1.0 there is no guidance.
        first_layer: the layer of the denoiser that gets the latents first.
    """

    pipeline: Any
    denoiser: Any
    arguments: Mapping[str, Any]
    scale: str
    first_layer: str

    def __call__(self, steps: int, guidance: float, **callbacks: Any) -> Any:
        """Generate; returns the latents, which may not be computed yet."""
        return self.pipeline(
            **self.arguments,
            **{self.scale: guidance},
            num_inference_steps=steps,
            output_type="latent",
            return_dict=False,
            **callbacks,
        )[0]

    def to_numpy(self, latents: Any) -> npt.NDArray[Any]:
        """Wait for latents, and take them to the host."""
        array: npt.NDArray[Any] = backend_for(self.pipeline).ops.to_numpy(latents)
        return array

    def parameters(self) -> int:
        """Count the numbers that the denoiser learns."""
        model = self.denoiser
        listed = getattr(model, "get_parameters", None) or model.parameters
        return sum(int(np.prod(parameter.shape)) for parameter in listed())

    def rows(self) -> AbstractContextManager[list[int]]:
        """See :func:`computed_rows`, of the denoiser."""
        return computed_rows(getattr(self.denoiser, self.first_layer))


@contextmanager
def computed_rows(layer: Any) -> Iterator[list[int]]:
    """Collect the rows of the batch in each call of a model that is really computed, as they come.

    Args:
        layer: the layer of the model that gets its latents first.
    """
    found: list[int] = []

    def note(_: Any, inputs: tuple[Any, ...]) -> None:
        found.append(int(inputs[0].shape[0]))

    hook = layer.register_forward_pre_hook(note)
    try:
        yield found
    finally:
        hook.remove()


def sd_unet(width: int, **more: Any) -> dict[str, Any]:
    """Return the configuration of Stable Diffusion 2's UNet, with as many channels as asked for.

    Stable Diffusion's own ``width`` is 320; see stabilityai/stable-diffusion-2-1-base,
    unet/config.json.
    """
    return {
        "block_out_channels": (width, 2 * width, 4 * width, 4 * width),
        "cross_attention_dim": 1024,
        "attention_head_dim": 8,
        "norm_num_groups": 8,
        **more,
    }


def sdxl_unet(width: int, **more: Any) -> dict[str, Any]:
    """Return the configuration of SDXL's UNet, all widths scaled from its own ``width`` of 320.

    See stabilityai/stable-diffusion-xl-base-1.0, unet/config.json.
    """
    time_ids = 256 * width // 320
    return {
        "block_out_channels": (width, 2 * width, 4 * width),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        # Heads; as in SDXL, each has 64 channels where width divides by 64.
        "attention_head_dim": tuple(max(1, width * n // 64) for n in (1, 2, 4)),
        "cross_attention_dim": 2048 * width // 320,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": time_ids,
        "projection_class_embeddings_input_dim": 1280 * width // 320 + 6 * time_ids,
        "norm_num_groups": 32 if width % 32 == 0 else 8,
        **more,
    }


#: Of black-forest-labs/FLUX.1-dev, transformer/config.json: twelve thousand million parameters.
FLUX: Mapping[str, Any] = {
    "in_channels": 64,
    "num_layers": 19,
    "num_single_layers": 38,
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 768,
    "guidance_embeds": True,
    "axes_dims_rope": (16, 56, 56),
}


def stable_diffusion(
    fw: Framework, config: Mapping[str, Any], size: int, batch: int = 1
) -> Untrained:
    """Build ``StableDiffusionPipeline`` on latents ``[batch, 4, size, size]``, with DDIM."""
    unet = fw.model("UNet2DConditionModel", sample_size=size, **config)
    pipeline = fw.library.StableDiffusionPipeline(
        **dict.fromkeys(("vae", "text_encoder", "tokenizer", "safety_checker")),
        feature_extractor=None,
        requires_safety_checker=False,
        unet=unet,
        scheduler=fw.library.DDIMScheduler(steps_offset=1, clip_sample=False, **_BETAS),
    )
    arguments = _embeddings(fw, batch, config["cross_attention_dim"])
    return _made(fw, pipeline, unet, arguments, batch, size)


def stable_diffusion_xl(
    fw: Framework, config: Mapping[str, Any], size: int, batch: int = 1
) -> Untrained:
    """Build ``StableDiffusionXLPipeline`` on latents ``[batch, 4, size, size]``, with Euler."""
    unet = fw.model("UNet2DConditionModel", sample_size=size, **config)
    pipeline = fw.library.StableDiffusionXLPipeline(
        **dict.fromkeys(("vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")),
        unet=unet,
        scheduler=fw.library.EulerDiscreteScheduler(steps_offset=1, **_BETAS),
    )
    ids = config["addition_time_embed_dim"]
    pooled = config["projection_class_embeddings_input_dim"] - 6 * ids
    arguments = _embeddings(fw, batch, config["cross_attention_dim"], pooled)
    return _made(fw, pipeline, unet, arguments, batch, size)


def flux(fw: Framework, config: Mapping[str, Any], size: int, batch: int = 1) -> Untrained:
    """Build ``FluxPipeline`` with true CFG, on latents ``[batch, size * size / 4, 64]``, packed."""
    transformer = fw.model("FluxTransformer2DModel", **config)
    pipeline = fw.library.FluxPipeline(
        **dict.fromkeys(("vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")),
        transformer=transformer,
        scheduler=fw.library.FlowMatchEulerDiscreteScheduler(shift=3.0),
    )
    pipeline.set_progress_bar_config(disable=True)
    width, pooled = config["joint_attention_dim"], config["pooled_projection_dim"]
    arguments = {
        **_embeddings(fw, batch, width, pooled),
        "latents": _normal(fw, 0, batch, size * size // 4, config["in_channels"]),
        **dict.fromkeys(("height", "width"), 8 * size),
    }
    return Untrained(pipeline, transformer, arguments, "true_cfg_scale", "x_embedder")


def _made(
    fw: Framework, pipeline: Any, unet: Any, arguments: dict[str, Any], batch: int, size: int
) -> Untrained:
    pipeline.set_progress_bar_config(disable=True)
    arguments |= {"latents": _normal(fw, 0, batch, 4, size, size)}
    arguments |= dict.fromkeys(("height", "width"), 8 * size)
    return Untrained(pipeline, unet, arguments, "guidance_scale", "conv_in")


def _embeddings(fw: Framework, batch: int, width: int, pooled: int | None = None) -> dict[str, Any]:
    """Make the embeddings of as many prompts, and of as many negative ones."""
    found = {
        "prompt_embeds": _normal(fw, 1, batch, TOKENS, width),
        "negative_prompt_embeds": _normal(fw, 2, batch, TOKENS, width),
    }
    if pooled is not None:
        found["pooled_prompt_embeds"] = _normal(fw, 3, batch, pooled)
        found["negative_pooled_prompt_embeds"] = _normal(fw, 4, batch, pooled)
    return found


def _normal(fw: Framework, seed: int, *shape: int) -> Any:
    return fw.tensor(np.random.default_rng(seed).normal(size=shape))
