"""Tiny pipelines of real classes whose loops call no step-end callback, and plain runs of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from zoo.families.diffusion_transformers import small_vae
from zoo.framework import Framework

WIDTH = 8
TOKENS = 5


@dataclass(frozen=True)
class Kind:
    """One class.

    Attributes:
        build: makes a pipeline, with a scheduler of the class of that name.
        arguments: of its call, for so many rows and steps, with guidance or without.
        order: which block of the denoiser's rows is the unconditional one, and which the other.
        denoiser: the name of its denoiser.
    """

    build: Callable[[Framework, str], Any]
    arguments: Callable[[Framework, int, int, bool], dict[str, Any]]
    order: tuple[int, int] = (0, 1)
    denoiser: str = "unet"


def unet(fx: Framework, channels: int, out: int, **more: Any) -> Any:
    return fx.model(
        "UNet2DConditionModel",
        sample_size=8,
        in_channels=channels,
        out_channels=out,
        block_out_channels=(8, 8),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=2,
        norm_num_groups=4,
        **more,
    )


def embeds(fx: Framework, rows: int, seed: int, *shape: int) -> Any:
    return fx.normal(rows, *(shape or (TOKENS, WIDTH)), seed=seed)


def common(fx: Framework, steps: int, scale: float) -> dict[str, Any]:
    return {
        "num_inference_steps": steps,
        "guidance_scale": scale,
        "generator": fx.generator(3),
        "return_dict": False,
    }


def _pixart(name: str, fx: Framework, scheduler: str) -> Any:
    model = fx.model(
        "PixArtTransformer2DModel",
        sample_size=8,
        num_layers=2,
        patch_size=2,
        attention_head_dim=4,
        num_attention_heads=2,
        caption_channels=WIDTH,
        cross_attention_dim=WIDTH,
        in_channels=4,
        out_channels=8,
        use_additional_conditions=False,
        norm_type="ada_norm_single",
        num_embeds_ada_norm=1000,
    )
    parts = {"transformer": model, "vae": small_vae(fx, 4), "scheduler": fx.scheduler(scheduler)}
    return fx.pipeline(name, **parts, text_encoder=None, tokenizer=None)


def _pixart_arguments(fx: Framework, rows: int, steps: int, guided: bool) -> dict[str, Any]:
    mask = fx.tensor(np.ones((rows, TOKENS)), "int64")
    return {
        **common(fx, steps, 4.5 if guided else 1.0),
        "prompt_embeds": embeds(fx, rows, 1),
        "prompt_attention_mask": mask,
        "negative_prompt": None,
        "negative_prompt_embeds": embeds(fx, rows, 2),
        "negative_prompt_attention_mask": mask,
        "height": 64,
        "width": 64,
        "use_resolution_binning": False,
        "output_type": "latent",
    }


def _if(name: str, fx: Framework, scheduler: str) -> Any:
    return fx.pipeline(
        name,
        unet=unet(fx, 3, 6),
        scheduler=fx.scheduler(scheduler, variance_type="learned_range"),
        tokenizer=None,
        text_encoder=None,
        safety_checker=None,
        feature_extractor=None,
        watermarker=None,
        requires_safety_checker=False,
    )


def _if_arguments(fx: Framework, rows: int, steps: int, guided: bool) -> dict[str, Any]:
    return {
        **common(fx, steps, 4.5 if guided else 1.0),
        "prompt_embeds": embeds(fx, rows, 1),
        "negative_prompt_embeds": embeds(fx, rows, 2),
        "output_type": "pt",
    }


def _if_text(fx: Framework, rows: int, steps: int, guided: bool) -> dict[str, Any]:
    return {**_if_arguments(fx, rows, steps, guided), "height": 8, "width": 8}


def _if_image(fx: Framework, rows: int, steps: int, guided: bool) -> dict[str, Any]:
    picture = fx.tensor(np.random.default_rng(4).uniform(-1, 1, (rows, 3, 8, 8)))
    return {**_if_arguments(fx, rows, steps, guided), "image": picture, "strength": 0.7}


def _upscale(fx: Framework, scheduler: str) -> Any:
    model = unet(fx, 8, 5, time_cond_proj_dim=128 + WIDTH)
    parts = {"unet": model, "vae": small_vae(fx, 4), "scheduler": fx.scheduler(scheduler)}
    return fx.pipeline(
        "StableDiffusionLatentUpscalePipeline", **parts, text_encoder=None, tokenizer=None
    )


def _upscale_arguments(fx: Framework, rows: int, steps: int, guided: bool) -> dict[str, Any]:
    return {
        **common(fx, steps, 4.5 if guided else 1.0),
        "prompt_embeds": embeds(fx, rows, 1),
        "negative_prompt_embeds": embeds(fx, rows, 2),
        "pooled_prompt_embeds": embeds(fx, rows, 5, WIDTH),
        "negative_pooled_prompt_embeds": embeds(fx, rows, 6, WIDTH),
        "image": fx.normal(rows, 4, 4, 4, seed=4),
        "output_type": "latent",
    }


def _adapter(fx: Framework, scheduler: str) -> Any:
    adapter = fx.model(
        "T2IAdapter",
        in_channels=3,
        channels=[8, 8],
        num_res_blocks=1,
        downscale_factor=8,
        adapter_type="full_adapter",
    )
    return fx.pipeline(
        "StableDiffusionAdapterPipeline",
        unet=unet(fx, 4, 4),
        vae=small_vae(fx, 4),
        scheduler=fx.scheduler(scheduler),
        adapter=adapter,
        text_encoder=None,
        tokenizer=None,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _adapter_arguments(fx: Framework, rows: int, steps: int, guided: bool) -> dict[str, Any]:
    return {
        **common(fx, steps, 4.5 if guided else 1.0),
        "prompt_embeds": embeds(fx, rows, 1),
        "negative_prompt_embeds": embeds(fx, rows, 2),
        "image": fx.uniform(rows, 3, 64, 64, seed=4),
        "height": 64,
        "width": 64,
        "output_type": "latent",
    }


def _dit(fx: Framework, scheduler: str) -> Any:
    model = fx.model(
        "DiTTransformer2DModel",
        sample_size=8,
        num_layers=2,
        patch_size=2,
        attention_head_dim=4,
        num_attention_heads=2,
        in_channels=4,
        out_channels=8,
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_zero",
        activation_fn="gelu-approximate",
    )
    parts = {"transformer": model, "vae": small_vae(fx, 4), "scheduler": fx.scheduler(scheduler)}
    return fx.pipeline("DiTPipeline", **parts)


def _dit_arguments(fx: Framework, rows: int, steps: int, guided: bool) -> dict[str, Any]:
    labels = [3, 500, 7, 9][:rows]
    made = {**common(fx, steps, 4.5 if guided else 1.0), "class_labels": labels}
    return {**made, "output_type": "pt"}


KINDS = {
    "PixArtAlphaPipeline": Kind(
        partial(_pixart, "PixArtAlphaPipeline"), _pixart_arguments, denoiser="transformer"
    ),
    "PixArtSigmaPipeline": Kind(
        partial(_pixart, "PixArtSigmaPipeline"), _pixart_arguments, denoiser="transformer"
    ),
    "IFPipeline": Kind(partial(_if, "IFPipeline"), _if_text),
    "IFImg2ImgPipeline": Kind(partial(_if, "IFImg2ImgPipeline"), _if_image),
    "StableDiffusionLatentUpscalePipeline": Kind(_upscale, _upscale_arguments),
    "StableDiffusionAdapterPipeline": Kind(_adapter, _adapter_arguments),
    "DiTPipeline": Kind(_dit, _dit_arguments, order=(1, 0), denoiser="transformer"),
}


@dataclass
class Plain:
    """What a run without unicb did.

    Attributes:
        latents: what each call of ``scheduler.step`` returned.
        timesteps: what it was called with.
        rows: that the denoiser was called with, each time.
        made: what the pipeline returned.
    """

    latents: list[Any]
    timesteps: list[float]
    rows: list[int]
    made: Any = None


@contextmanager
def looked_at(
    fx: Framework, pipe: Any, kind: Kind, cut_after: int | None = None
) -> Iterator[Plain]:
    """A block in which the pipeline is seen to run; ``cut_after``: from the end of this step on,
    the unconditional rows of the denoiser's output are overwritten by the conditional ones."""
    seen, model = Plain([], [], []), getattr(pipe, kind.denoiser)
    base, step = type(model), type(pipe.scheduler).step

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        sample = args[0] if args else kwargs["hidden_states"]
        seen.rows.append(int(sample.shape[0]))
        out = getattr(base, fx.forward)(self, *args, **kwargs)
        if cut_after is not None and len(seen.latents) > cut_after:
            whole = out[0]
            unconditional, conditional = kind.order
            half = len(whole) // 2
            whole[unconditional * half : (unconditional + 1) * half] = whole[
                conditional * half : (conditional + 1) * half
            ]
        return out

    def stepped(self: Any, *args: Any, **kwargs: Any) -> Any:
        out = step(self, *args, **kwargs)
        latents = out[0] if isinstance(out, tuple) else out.prev_sample
        seen.latents.append(fx.backend.ops.to_numpy(latents).copy())
        seen.timesteps.append(float(args[1]))
        return out

    stepped.__wrapped__ = step  # type: ignore[attr-defined]
    of = type(pipe.scheduler)
    model.__class__ = type(base.__name__, (base,), {fx.forward: forward})
    pipe.scheduler.__class__ = type(of.__name__, (of,), {"step": stepped})
    try:
        yield seen
    finally:
        model.__class__, pipe.scheduler.__class__ = base, of
