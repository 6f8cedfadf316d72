"""The modular pipelines of diffusers, each with tiny models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from zoo.entry import Request
from zoo.families import entries as classic_entries
from zoo.families.flux import HEIGHT, LENGTH, POOLED, TEXT, WIDTH
from zoo.families.wan import picture
from zoo.framework import Framework
from zoo.modular.entry import ModularEntry

Arguments = Callable[[Framework, Request], dict[str, Any]]


def _of(
    family: str, name: str, variant: str = "", **named: str
) -> Callable[[Framework], dict[str, Any]]:
    """Return the models of a classic pipeline; ``named``: of a component, what it is called
    there."""

    def parts(fx: Framework) -> dict[str, Any]:
        found = (x for x in classic_entries(family) if (x.name, x.variant) == (name, variant))
        made = next(found).build(fx).components
        made |= {new: made[old] for new, old in named.items()}
        return {key: part for key, part in made.items() if part is not None}

    return parts


def _call(fx: Framework, request: Request, **more: Any) -> dict[str, Any]:
    return {"num_inference_steps": request.steps, "generator": fx.generator(), **more}


def _both(fx: Framework, request: Request, name: str, *shape: int, seed: int = 1) -> dict[str, Any]:
    """Return a tensor of rows, and the negative one."""
    return {
        name: fx.normal(request.prompts, *shape, seed=seed),
        f"negative_{name}": fx.normal(request.prompts, *shape, seed=seed + 1),
    }


def _positive(arguments: Arguments) -> Arguments:
    """Return ``arguments`` without negative ones."""

    def positive(fx: Framework, request: Request) -> dict[str, Any]:
        found = arguments(fx, request)
        return {key: x for key, x in found.items() if not key.startswith("negative_")}

    return positive


def _images(request: Request) -> dict[str, Any]:
    return {"num_images_per_prompt": request.images}


def _sdxl(fx: Framework, request: Request) -> dict[str, Any]:
    embeds = _both(fx, request, "prompt_embeds", 4, 8)
    pooled = _both(fx, request, "pooled_prompt_embeds", 8, seed=3)
    return _call(fx, request, height=16, width=16, **embeds, **pooled, **_images(request))


def _flux(fx: Framework, request: Request, pooled: bool = True, negative: bool = False) -> Any:
    found = _both(fx, request, "prompt_embeds", LENGTH, TEXT)
    if pooled:
        found |= _both(fx, request, "pooled_prompt_embeds", POOLED, seed=3)
    kept = {k: x for k, x in found.items() if negative or not k.startswith("negative")}
    return _call(fx, request, height=HEIGHT, width=WIDTH, **kept, **_images(request))


def _qwen(fx: Framework, request: Request, **more: Any) -> dict[str, Any]:
    return _call(
        fx,
        request,
        height=8,
        width=16,
        **_both(fx, request, "prompt_embeds", 4, TEXT),
        prompt_embeds_mask=_ones(fx, request, 4),
        negative_prompt_embeds_mask=_ones(fx, request, 4),
        **_images(request),
        **more,
    )


def _ones(fx: Framework, request: Request, length: int, dtype: str = "int64") -> Any:
    return fx.tensor(np.ones((request.prompts, length)), dtype)


def _qwen_edit(fx: Framework, request: Request, listed: bool = False) -> dict[str, Any]:
    """Make the arguments with the latents of a picture, without a VAE: there are 8 pixels to a cell
    then."""
    latents = fx.normal(request.prompts, 4, 1, 8, 16, seed=5)
    picture_latents = [latents] if listed else latents
    return {**_qwen(fx, request), "height": 64, "width": 128, "image_latents": picture_latents}


def _layered(fx: Framework, request: Request) -> dict[str, Any]:
    found = _qwen(fx, request)
    del found["height"], found["width"]
    return {**found, "image_latents": fx.normal(request.prompts, 1, 4, 8, 16, seed=5), "layers": 2}


def _qwen21(fx: Framework, request: Request, **more: Any) -> dict[str, Any]:
    pads = fx.tensor(np.zeros((request.prompts, 4)), "bool")
    return {
        **_qwen(fx, request),
        "height": 32,
        "width": 64,
        "image_pad_mask": pads,
        "negative_image_pad_mask": pads,
    }


def _sd3(fx: Framework, request: Request) -> dict[str, Any]:
    embeds = _both(fx, request, "prompt_embeds", 4, 8)
    pooled = _both(fx, request, "pooled_prompt_embeds", 8, seed=3)
    return _call(fx, request, height=16, width=16, **embeds, **pooled, **_images(request))


def _wan(fx: Framework, request: Request, length: int = 4, **more: Any) -> dict[str, Any]:
    embeds = _both(fx, request, "prompt_embeds", length, 8)
    return _call(
        fx,
        request,
        height=32,
        width=32,
        num_frames=5,
        # Of as many channels as published models have, if it makes them itself.
        latents=fx.normal(request.rows, 4, 2, 4, 4, seed=9),
        **embeds,
        num_videos_per_prompt=request.images,
        **more,
    )


def _wan_image(fx: Framework, request: Request, embeds: bool = False) -> dict[str, Any]:
    found = _wan(fx, request, length=512, image=picture())
    rows = request.rows
    return {**found, "image_embeds": fx.normal(rows, 5, 8, seed=6)} if embeds else found


def _ltx(fx: Framework, request: Request) -> dict[str, Any]:
    return _call(
        fx,
        request,
        height=64,
        width=32,
        num_frames=9,
        **_both(fx, request, "prompt_embeds", 4, 8),
        prompt_attention_mask=_ones(fx, request, 4, "int32"),
        negative_prompt_attention_mask=_ones(fx, request, 4, "int32"),
        num_videos_per_prompt=request.images,
    )


def _ltx2(fx: Framework, request: Request) -> dict[str, Any]:
    names = ("connector_prompt_embeds", "connector_audio_prompt_embeds")
    embeds: dict[str, Any] = {}
    for seed, name in enumerate(names):
        embeds |= _both(fx, request, name, 4, 8, seed=1 + 2 * seed)
    return _call(
        fx,
        request,
        height=64,
        width=32,
        num_frames=9,
        batch_size=request.prompts,
        dtype=fx.normal(1).dtype,
        **embeds,
        connector_attention_mask=_ones(fx, request, 4),
        negative_connector_attention_mask=_ones(fx, request, 4),
        num_videos_per_prompt=request.images,
    )


def _listed(fx: Framework, request: Request, name: str = "prompt_embeds") -> dict[str, Any]:
    """Return the embeddings as lists of one item a prompt."""
    both = _both(fx, request, name, 4, 8)
    return {key: list(rows) for key, rows in both.items()}


def _z_image(fx: Framework, request: Request) -> dict[str, Any]:
    return _call(fx, request, height=16, width=32, **_listed(fx, request), **_images(request))


def _ernie(fx: Framework, request: Request) -> dict[str, Any]:
    return _call(fx, request, height=32, width=64, **_listed(fx, request), **_images(request))


def _krea2(fx: Framework, request: Request) -> dict[str, Any]:
    return _call(
        fx,
        request,
        height=32,
        width=64,
        **_both(fx, request, "prompt_embeds", 4, 2, 8),
        prompt_embeds_mask=_ones(fx, request, 4, "bool"),
        negative_prompt_embeds_mask=_ones(fx, request, 4, "bool"),
        **_images(request),
    )


def _ideogram(fx: Framework, request: Request) -> dict[str, Any]:
    return _call(
        fx,
        request,
        height=32,
        width=64,
        text_features=fx.normal(request.prompts, 4, 8),
        text_lengths=[4] * request.prompts,
        guidance_schedule=[7.0] * request.steps,
        **_images(request),
    )


def _flux3_parts(fx: Framework, distilled: bool = False) -> dict[str, Any]:
    transformer = fx.model(
        "Flux3Transformer2DModel",
        in_channels=16,
        cond_in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=TEXT,
        timestep_channels=8,
        axes_dims_rope=(2, 2, 2, 2),
        flow_map=distilled,
    )
    return {
        "transformer": transformer,
        "scheduler": fx.scheduler("FlowMatchEulerDiscreteScheduler"),
    }


def _flux3(fx: Framework, request: Request) -> dict[str, Any]:
    return {**_flux(fx, request, pooled=False, negative=True), "height": 32, "width": 64}


def _anima_parts(fx: Framework) -> dict[str, Any]:
    transformer = fx.model(
        "CosmosTransformer3DModel",
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=1,
        mlp_ratio=1.0,
        text_embed_dim=8,
        adaln_lora_dim=4,
        max_size=(8, 8, 8),
        extra_pos_embed_type=None,
        concat_padding_mask=False,
    )
    conditioner = fx.model(
        "AnimaTextConditioner",
        source_dim=8,
        target_dim=8,
        model_dim=8,
        num_layers=1,
        num_attention_heads=2,
        mlp_ratio=1.0,
        target_vocab_size=16,
        min_sequence_length=4,
    )
    return {
        "transformer": transformer,
        "text_conditioner": conditioner,
        "scheduler": fx.scheduler("FlowMatchEulerDiscreteScheduler"),
    }


def _anima(fx: Framework, request: Request) -> dict[str, Any]:
    found = _both(fx, request, "qwen_prompt_embeds", 4, 8)
    for seed, prefix in enumerate(("", "negative_")):
        found[f"{prefix}qwen_attention_mask"] = _ones(fx, request, 4)
        found[f"{prefix}t5_attention_mask"] = _ones(fx, request, 4)
        ids = np.random.default_rng(seed).integers(1, 16, (request.prompts, 4))
        found[f"{prefix}t5_input_ids"] = fx.tensor(ids, "int64")
    return _call(fx, request, height=32, width=64, **found, **_images(request))


def _cosmos3(fx: Framework, request: Request) -> dict[str, Any]:
    return _call(
        fx,
        request,
        height=64,
        width=64,
        num_frames=5,
        cond_input_ids=[3, 4, 5, 6, 1, 2],
        uncond_input_ids=[7, 8, 1, 2],
    )


def _cosmos3_distilled(fx: Framework) -> dict[str, Any]:
    return {
        **_of("cosmos", "Cosmos3OmniPipeline")(fx),
        "scheduler": fx.scheduler("FlowMatchEulerDiscreteScheduler"),
        "distilled_sigmas": [1.0, 0.75, 0.5, 0.25],
    }


def _state_scale_off(state: Any, index: int) -> None:
    state.guidance_scale = 1.0


def _weight_off(state: Any, index: int) -> None:
    state.gw[index] = 1.0


def _echo(fx: Framework, request: Request) -> dict[str, Any]:
    found = _ltx2(fx, request)
    kept = {
        key: x for key, x in found.items() if not key.startswith(("negative", "batch", "dtype"))
    }
    del kept["num_inference_steps"]
    steps = np.linspace(1.0, 0.0, request.steps + 1)
    return {**kept, "sigmas": [float(x) for x in steps]}


def _hunyuan15(fx: Framework, request: Request) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for seed, (name, width) in enumerate((("prompt_embeds", 8), ("prompt_embeds_2", 6))):
        found |= _both(fx, request, name, 4, width, seed=1 + 2 * seed)
    for name in ("prompt_embeds_mask", "prompt_embeds_mask_2"):
        found[name] = found[f"negative_{name}"] = _ones(fx, request, 4)
    return _call(
        fx,
        request,
        height=32,
        width=32,
        num_frames=5,
        batch_size=request.prompts,
        num_videos_per_prompt=request.images,
        **found,
    )


def _minimax_parts(fx: Framework) -> dict[str, Any]:
    transformer = fx.model(
        "MiniMaxH3Transformer3DModel",
        num_attention_heads=2,
        attention_head_dim=8,
        hidden_size=16,
        num_layers=1,
        num_refiner_layers=1,
        ffn_dim=16,
        text_dim=8,
        freq_dim=8,
        time_embed_hidden_dim=16,
        time_embed_dim=8,
        rope_freq_dim=1,
    )
    schedulers = ("scheduler", "audio_scheduler")
    return {
        "transformer": transformer,
        **{name: fx.scheduler("MiniMaxH3Scheduler") for name in schedulers},
    }


def _minimax(fx: Framework, request: Request) -> dict[str, Any]:
    return _call(
        fx,
        request,
        height=32,
        width=64,
        num_frames=124,  # the least that it makes
        prompt_embeds=fx.normal(1, 4, 8),
        text_token_tags=fx.tensor(np.ones(4), "int64"),
    )


def _helios(fx: Framework, request: Request, stages: int = 0) -> dict[str, Any]:
    """Ask for two parts of a video; with stages, each begins smaller."""
    found = _wan(fx, request)
    del found["latents"]
    if stages:
        del found["num_inference_steps"]
        found["pyramid_num_inference_steps_list"] = [request.steps] * stages
    return {**found, "num_frames": 17, "num_latent_frames_per_chunk": 3}


def _helios_distilled(fx: Framework) -> dict[str, Any]:
    found = _of("wan", "HeliosPyramidPipeline")(fx)
    config = {key: found["scheduler"].config[key] for key in ("stages", "stage_range", "gamma")}
    return {**found, "scheduler": fx.scheduler("HeliosDMDScheduler", **config)}


_EXPANDS = "its loop (mindone 0.5.0) expands a timestep by a number, where MindSpore takes a shape"
_ONE_EACH = {"two images per prompt": "its history has a row for each prompt"}
_ONE = dict.fromkeys(("two prompts", "two images per prompt"), "a call makes one video")


def modular_entries() -> Iterator[ModularEntry]:
    """Yield all entries of modular pipelines."""
    yield from _ENTRIES


_ENTRIES = (
    ModularEntry(
        "StableDiffusionXLModularPipeline",
        _of("stable_diffusion", "StableDiffusionXLPipeline"),
        _sdxl,
        frameworks=("torch", "mindspore"),
    ),
    ModularEntry("FluxModularPipeline", _of("flux", "FluxPipeline"), _flux),
    ModularEntry("FluxKontextModularPipeline", _of("flux", "FluxKontextPipeline"), _flux),
    ModularEntry(
        "Flux2ModularPipeline",
        _of("flux", "Flux2Pipeline"),
        partial(_flux, pooled=False),
        patched=True,
    ),
    ModularEntry(
        "Flux2KleinModularPipeline",
        _of("flux", "Flux2KleinPipeline"),
        partial(_flux, pooled=False),
        patched=True,
    ),
    ModularEntry(
        "Flux2KleinBaseModularPipeline",
        _of("flux", "Flux2KleinPipeline"),
        partial(_flux, pooled=False, negative=True),
        patched=True,
    ),
    ModularEntry(
        "QwenImageModularPipeline",
        _of("qwen", "QwenImagePipeline"),
        _qwen,
    ),
    ModularEntry(
        "QwenImageEditModularPipeline",
        _of("qwen", "QwenImageEditPipeline"),
        _qwen_edit,
        left_out=("vae_encoder",),
    ),
    ModularEntry(
        "QwenImageEditPlusModularPipeline",
        _of("qwen", "QwenImageEditPlusPipeline"),
        partial(_qwen_edit, listed=True),
        left_out=("vae_encoder",),
    ),
    ModularEntry(
        "QwenImageLayeredModularPipeline",
        _of("qwen", "QwenImageLayeredPipeline"),
        _layered,
        left_out=("vae_encoder",),
    ),
    ModularEntry("QwenImage21ModularPipeline", _of("qwen", "QwenImage21Pipeline"), _qwen21),
    ModularEntry(
        "QwenImage21TurboModularPipeline", _of("qwen", "QwenImage21Pipeline"), _positive(_qwen21)
    ),
    ModularEntry(
        "StableDiffusion3ModularPipeline",
        _of("diffusion_transformers", "StableDiffusion3Pipeline"),
        _sd3,
    ),
    ModularEntry("WanModularPipeline", _of("wan", "WanPipeline"), _wan),
    ModularEntry("Wan22ModularPipeline", _of("wan", "WanPipeline", "two experts"), _wan),
    ModularEntry(
        "WanImage2VideoModularPipeline",
        _of("wan", "WanImageToVideoPipeline"),
        partial(_wan_image, embeds=True),
        left_out=("image_encoder",),
    ),
    ModularEntry(
        "Wan22Image2VideoModularPipeline",
        _of("wan", "WanImageToVideoPipeline", "two experts"),
        _wan_image,
    ),
    ModularEntry(
        "Wan22VaceModularPipeline",
        _of("wan", "WanVACEPipeline", "two experts"),
        _wan,
        impossible=_ONE,
    ),
    ModularEntry("LTXModularPipeline", _of("ltx", "LTXPipeline"), _ltx),
    ModularEntry("LTX2ModularPipeline", _of("ltx", "LTX2Pipeline"), _ltx2, cells=(2, 2, 1)),
    ModularEntry("LTX25ModularPipeline", _of("ltx", "LTX2Pipeline"), _ltx2, cells=(2, 2, 1)),
    ModularEntry("ZImageModularPipeline", _of("image_transformers", "ZImagePipeline"), _z_image),
    ModularEntry(
        "ErnieImageModularPipeline",
        _of("image_transformers", "ErnieImagePipeline"),
        _ernie,
        patched=True,
    ),
    ModularEntry("Krea2ModularPipeline", _of("image_transformers", "Krea2Pipeline"), _krea2),
    ModularEntry(
        "Krea2TurboModularPipeline", _of("image_transformers", "Krea2Pipeline"), _positive(_krea2)
    ),
    ModularEntry(
        "Ideogram4ModularPipeline",
        _of("image_transformers", "Ideogram4Pipeline"),
        _ideogram,
        unguided=_weight_off,
        scaled=lambda scale, request: {"guidance_schedule": [scale] * request.steps},
    ),
    ModularEntry("Flux3ModularPipeline", _flux3_parts, _flux3, patched=True),
    ModularEntry(
        "Flux3DistilledModularPipeline",
        partial(_flux3_parts, distilled=True),
        _positive(_flux3),
        patched=True,
    ),
    ModularEntry("AnimaModularPipeline", _anima_parts, _anima),
    ModularEntry(
        "Cosmos3OmniModularPipeline",
        _of("cosmos", "Cosmos3OmniPipeline"),
        _cosmos3,
        left_out=("after_decode",),
        impossible=_ONE,
        unguided=_state_scale_off,
        scaled=lambda scale, request: {"guidance_scale": scale},
    ),
    ModularEntry(
        "Cosmos3DistilledModularPipeline",
        _cosmos3_distilled,
        _cosmos3,
        impossible=_ONE,
    ),
    ModularEntry("EchoModularPipeline", _of("ltx", "LTX2Pipeline"), _echo),
    *(
        ModularEntry(
            name,
            dict,
            _call,
            frameworks=("mindspore",),
            not_built=_EXPANDS,
        )
        for name in (
            "QwenImageModularPipeline",
            "QwenImageEditModularPipeline",
            "QwenImageEditPlusModularPipeline",
        )
    ),
    ModularEntry(
        "WanModularPipeline",
        dict,
        _call,
        frameworks=("mindspore",),
        not_built="its blocks (mindone 0.5.0) name what they take from others where none reads it, "
        "and find no embeddings",
    ),
    ModularEntry(
        "FluxModularPipeline",
        dict,
        _call,
        frameworks=("mindspore",),
        not_built="its blocks (mindone 0.5.0) cannot be made: one of them has no trigger for its "
        "last part",
    ),
    ModularEntry(
        "HeliosModularPipeline",
        _of("wan", "HeliosPipeline"),
        _helios,
        impossible=_ONE_EACH,
        stops_otherwise="parts of the video that had not begun repeat the latents of the stop",
    ),
    ModularEntry(
        "HeliosPyramidModularPipeline",
        _of("wan", "HeliosPyramidPipeline"),
        partial(_helios, stages=2),
        impossible=_ONE_EACH,
    ),
    ModularEntry(
        "HeliosPyramidDistilledModularPipeline",
        _helios_distilled,
        partial(_helios, stages=2),
        impossible=_ONE_EACH,
    ),
    *(
        ModularEntry(name, dict, _call, bound_alone=True)
        for name in (
            "MiniMaxMusic3ModularPipeline",
            "WanAnimate2ModularPipeline",
            "WanAnimate2DistilledModularPipeline",
        )
    ),
    ModularEntry(
        "HunyuanVideo15ModularPipeline",
        _of("hunyuan_video15", "HunyuanVideo15Pipeline"),
        _hunyuan15,
        impossible={"two images per prompt": "its text masks have a row for each prompt"},
    ),
    ModularEntry("MiniMaxH3ModularPipeline", _minimax_parts, _minimax, impossible=_ONE),
)
