"""PixArt and DiT, whose loops step a scheduler and call no callback."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from zoo.entry import Entry, Request
from zoo.families.diffusion_transformers import small_vae
from zoo.framework import Framework

PIXELS = 64
TOKENS = 5
TEXT = 8
SCHEDULERS = ("DDIMScheduler", "PNDMScheduler", "HeunDiscreteScheduler")


def _model(fx: Framework, class_name: str, **more: Any) -> Any:
    return fx.model(
        class_name,
        sample_size=8,
        num_layers=2,
        patch_size=2,
        attention_head_dim=4,
        num_attention_heads=2,
        in_channels=4,
        out_channels=8,
        num_embeds_ada_norm=1000,
        **more,
    )


def _scheduler(fx: Framework, class_name: str) -> Any:
    more = {"skip_prk_steps": True} if class_name == "PNDMScheduler" else {}
    return fx.scheduler(class_name, **more)


def _pixart(name: str, scheduler: str, fx: Framework, **more: Any) -> Any:
    transformer = _model(
        fx,
        "PixArtTransformer2DModel",
        caption_channels=TEXT,
        cross_attention_dim=TEXT,
        use_additional_conditions=False,
        norm_type="ada_norm_single",
    )
    return fx.pipeline(
        name,
        transformer=transformer,
        vae=small_vae(fx, 4),
        scheduler=_scheduler(fx, scheduler),
        text_encoder=None,
        tokenizer=None,
        **more,
    )


def _prompted(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    def text(seed: int) -> Any:
        return fx.normal(request.prompts, TOKENS, TEXT, seed=seed)

    mask = fx.tensor(np.ones((request.prompts, TOKENS)), "int64")
    made = {
        "negative_prompt": None,  # which is "" where it is left out
        "prompt_embeds": text(1),
        "prompt_attention_mask": mask,
        "num_inference_steps": request.steps,
        "num_images_per_prompt": request.images,
        "guidance_scale": 20.0 if request.guided else 1.0,
        "generator": fx.generator(3),
        "height": PIXELS,
        "width": PIXELS,
        "use_resolution_binning": False,
        "output_type": "latent",
    }
    return {**made, "negative_prompt_embeds": text(2), "negative_prompt_attention_mask": mask}


def _perturbed(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {**_prompted(fx, pipeline, request), "pag_scale": 3.0}


def _dit(scheduler: str, fx: Framework) -> Any:
    norm = {"norm_type": "ada_norm_zero", "activation_fn": "gelu-approximate"}
    transformer = _model(fx, "DiTTransformer2DModel", **norm)
    parts = {"transformer": transformer, "vae": small_vae(fx, 4)}
    return fx.pipeline("DiTPipeline", **parts, scheduler=_scheduler(fx, scheduler))


def _classes(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {
        "class_labels": np.repeat([3, 500][: request.prompts], request.images).tolist(),
        "guidance_scale": 20.0 if request.guided else 1.0,
        "num_inference_steps": request.steps,
        "generator": fx.generator(3),
        "output_type": "np",
    }


def _entries(name: str, build: Any, schedulers: tuple[str, ...], **more: Any) -> list[Entry]:
    first, *others = schedulers
    made = [Entry(name, partial(build, first), **more)]
    for other in others:
        variant = other.removesuffix("Scheduler")
        made.append(Entry(name, partial(build, other), variant=variant, **more))
    return made


_PIXART: dict[str, Any] = {
    "arguments": _prompted,
}
_DIT: dict[str, Any] = {
    "arguments": _classes,
    "twice": True,
}

ENTRIES = [
    *_entries(
        "PixArtAlphaPipeline", partial(_pixart, "PixArtAlphaPipeline"), SCHEDULERS, **_PIXART
    ),
    *_entries(
        "PixArtSigmaPipeline",
        partial(_pixart, "PixArtSigmaPipeline"),
        ("DPMSolverMultistepScheduler",),
        **_PIXART,
    ),
    Entry(
        "PixArtSigmaPAGPipeline",
        partial(
            _pixart, "PixArtSigmaPAGPipeline", "DDIMScheduler", pag_applied_layers=["blocks.1"]
        ),
        _perturbed,
    ),
    *_entries("DiTPipeline", _dit, ("DDIMScheduler", "PNDMScheduler"), **_DIT),
]
