"""Stable Diffusion and its kin on a UNet."""

from __future__ import annotations

import importlib
import inspect
from functools import partial
from typing import Any

from zoo.entry import Entry, Request
from zoo.framework import Framework

PIXELS = 16
#: Four text tokens: as many as two prompts have rows with guidance.
TOKENS = 4
TEXT, POOLED, IMAGE = 8, 8, 6
TIME = 4
#: Kolors' text encoder is wider than its UNet's attention.
KOLORS_TEXT = 12

#: What a UNet, its ControlNet and its ControlNet-XS have in common.
_BLOCKS: dict[str, Any] = {
    "block_out_channels": (8, 16),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "cross_attention_dim": TEXT,
}


def _blocks(traits: frozenset[str]) -> dict[str, Any]:
    """Return the configuration that a UNet and its ControlNet have in common."""
    # A ControlNet-XS is made for blocks of two layers.
    layers = 2 if "xs" in traits else 1
    config = {**_BLOCKS, "layers_per_block": layers, "attention_head_dim": 2, "norm_num_groups": 4}
    if "xl" in traits:
        numbers = 5 if "aesthetic" in traits else 6
        config |= {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": TIME,
            "projection_class_embeddings_input_dim": numbers * TIME + POOLED,
            "use_linear_projection": True,
        }
    return config


def _unet(fx: Framework, traits: frozenset[str]) -> Any:
    channels = {"9": 9, "8": 8, "depth": 5}
    more: dict[str, Any] = {}
    if "kolors" in traits:
        more = {"encoder_hid_dim": KOLORS_TEXT, "encoder_hid_dim_type": "text_proj"}
    if "lcm" in traits:
        more = {"time_cond_proj_dim": 8}
    unet = fx.model(
        "UNet2DConditionModel",
        sample_size=PIXELS // 2,
        in_channels=next((n for trait, n in channels.items() if trait in traits), 4),
        out_channels=4,
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        **_blocks(traits),
        **more,
    )
    if "ip-adapter" in traits:
        adapters = range(2 if "two" in traits else 1)
        unet._load_ip_adapter_weights([_ip_adapter(fx, unet, seed) for seed in adapters])
    return unet


def _ip_adapter(fx: Framework, unet: Any, seed: int) -> dict[str, dict[str, Any]]:
    """Make random weights in the layout of an IP-Adapter file with four image tokens."""

    def weight(*shape: int, seed: int) -> Any:
        tensor = fx.normal(*shape, seed=seed)
        if fx.name == "mindspore":  # which loads parameters only
            return importlib.import_module("mindspore").Parameter(tensor)
        return tensor

    layers = {}
    key = 1
    for name in unet.attn_processors:
        if name.endswith("attn1.processor"):
            continue
        width = 8 if name.startswith(("down_blocks.0", "up_blocks.1")) else 16
        for part in ("to_k_ip", "to_v_ip"):
            layers[f"{key}.{part}.weight"] = weight(width, TEXT, seed=seed + key)
        key += 2
    projection = {
        "proj.weight": weight(4 * TEXT, IMAGE, seed=seed + 50),
        "proj.bias": weight(4 * TEXT, seed=seed + 51),
        "norm.weight": weight(TEXT, seed=seed + 52),
        "norm.bias": weight(TEXT, seed=seed + 53),
    }
    return {"image_proj": projection, "ip_adapter": layers}


def _controlnet(fx: Framework, traits: frozenset[str]) -> Any:
    config = {"conditioning_embedding_out_channels": (4, 8), **_blocks(traits)}
    if "union" in traits:
        width = config["block_out_channels"][0]
        return fx.model(
            "ControlNetUnionModel",
            num_trans_channel=width,
            num_proj_channel=width,
            num_trans_head=2,
            **config,
        )
    return fx.model("ControlNetModel", **config)


def _controlnet_xs(fx: Framework, traits: frozenset[str]) -> Any:
    return fx.model(
        "ControlNetXSAdapter",
        conditioning_embedding_out_channels=(4, 8),
        num_attention_heads=2,
        base_block_out_channels=_BLOCKS["block_out_channels"],
        max_norm_num_groups=4,
        sample_size=PIXELS // 2,
        use_linear_projection="xl" in traits,
        **{**_BLOCKS, "block_out_channels": (4, 8)},
    )


def _vae(fx: Framework, traits: frozenset[str]) -> Any:
    depth = 4 if "panorama" in traits else 2
    return fx.model(
        "AutoencoderKL",
        in_channels=6 if "ldm3d" in traits else 3,
        out_channels=6 if "ldm3d" in traits else 3,
        block_out_channels=(8,) * depth,
        down_block_types=("DownEncoderBlock2D",) * depth,
        up_block_types=("UpDecoderBlock2D",) * depth,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=PIXELS,
        force_upcast=False,
    )


def _scheduler(fx: Framework, traits: frozenset[str]) -> Any:
    betas = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    if "order-2" in traits:
        return fx.scheduler("HeunDiscreteScheduler", steps_offset=1, **betas)
    name = "LCMScheduler" if "lcm" in traits else "DDIMScheduler"
    return fx.scheduler(name, steps_offset=1, clip_sample=False, **betas)


def _class(fx: Framework, name: str) -> Any:
    """Return a pipeline's class. The library hides Kolors where there is no sentencepiece, which is
    needed for its tokenizer only."""
    library = fx.library
    if name.startswith("Kolors"):
        library = importlib.import_module(f"{library.__name__}.pipelines.kolors")
    return getattr(library, name)


def _build(class_name: str, traits: frozenset[str], fx: Framework) -> Any:
    """Return a pipeline without text encoders: it is called with embeddings."""
    pipeline_class = _class(fx, class_name)
    parts: dict[str, Any] = {
        "unet": _unet(fx, traits),
        "vae": _vae(fx, traits),
        "scheduler": _scheduler(fx, traits),
    }
    if "xs" in traits:
        parts["controlnet"] = _controlnet_xs(fx, traits)
    elif "controlnet" in traits:
        nets = [_controlnet(fx, traits) for _ in range(2 if "multi" in traits else 1)]
        parts["controlnet"] = nets if "multi" in traits else nets[0]
    if "aesthetic" in traits:
        parts["requires_aesthetics_score"] = True
    for name, parameter in inspect.signature(pipeline_class).parameters.items():
        if name == "requires_safety_checker":
            parts[name] = False
        elif parameter.default is parameter.empty:
            parts.setdefault(name, None)
    pipeline = pipeline_class(**parts)
    pipeline.set_progress_bar_config(disable=True)
    if "panorama" in traits:
        pipeline.get_views = partial(pipeline.get_views, window_size=4, stride=2)
    return pipeline


def _arguments(
    traits: frozenset[str], fx: Framework, pipeline: Any, request: Request
) -> dict[str, Any]:
    prompts = request.prompts
    accepted = inspect.signature(pipeline.__call__).parameters
    found: dict[str, Any] = {
        **_prompts(traits, fx, pipeline, request),
        "num_images_per_prompt": request.images,
        "num_inference_steps": request.steps,
        "guidance_scale": 5.0 if request.guided else 1.0,
        "generator": fx.generator(),
        "output_type": "latent",
    }
    if "height" in accepted:
        found |= {"height": PIXELS, "width": PIXELS}
    if "panorama" in traits:
        found |= {"height": 32, "width": 64, "view_batch_size": 2 if "two views" in traits else 1}
    if "image" in traits:
        found["image"] = fx.uniform(prompts, 3, PIXELS, PIXELS)
        if "strength" in accepted:
            found["strength"] = 1.0
    if "mask" in traits:
        found["mask_image"] = fx.zeros_and_box(prompts, 1, PIXELS, PIXELS)
    if "depth" in traits:
        found["depth_map"] = fx.uniform(prompts, PIXELS, PIXELS, seed=5)
    if "controlnet" in traits:
        found |= _control(traits, fx, prompts, set(accepted))
    if "guess" in traits:
        found["guess_mode"] = True
    if "rescale" in traits:
        found["guidance_rescale"] = 0.7
    if "ip-adapter" in traits:
        found |= _image_prompts(traits, fx, request)
    if "ldm3d" in traits:
        found["output_type"] = "np"
    if "sizes" in traits:
        small = (PIXELS // 2, PIXELS // 2)
        found |= {"negative_original_size": small, "negative_target_size": small}
    return found


def _edit_arguments(
    traits: frozenset[str], fx: Framework, pipeline: Any, request: Request
) -> dict[str, Any]:
    """LEdits++ edits the picture that it inverted last: here, noise stands for the inversion."""
    rows, edits = request.prompts, 2
    latents = (rows, 4, PIXELS // 2, PIXELS // 2)
    pipeline.scheduler.set_timesteps(request.steps)
    pipeline.inversion_steps = pipeline.scheduler.timesteps
    pipeline.eta, pipeline.batch_size, pipeline.size = 1.0, rows, (PIXELS, PIXELS)
    pipeline.init_latents = fx.normal(*latents)
    pipeline.zs = fx.normal(request.steps, *latents, seed=2)
    plain, edited = (fx.normal(n, TOKENS, TEXT, seed=n + 2) for n in (rows, rows * edits))
    if "xl" in traits:
        pooled = (fx.normal(n, POOLED, seed=n + 2) for n in (rows, rows * edits))
        found = (plain, edited, *pooled, [2] * edits)
    else:
        found = (edited, plain, [2] * edits)
    pipeline.encode_prompt = lambda **_: found
    return {
        "editing_prompt": ["one edit", "another edit"],
        "use_intersect_mask": False,
        "generator": fx.generator(),
        "output_type": "latent",
    }


def _prompts(
    traits: frozenset[str], fx: Framework, pipeline: Any, request: Request
) -> dict[str, Any]:
    """Return the embeddings, conditional and unconditional ones."""
    if "kolors" in traits:
        # The pipeline does not repeat embeddings that it is given, or mixes them up.
        texts = [fx.normal(request.rows, TOKENS, KOLORS_TEXT, seed=seed) for seed in (1, 2)]
        pooled = [fx.normal(request.rows, POOLED, seed=seed) for seed in (3, 4)]
        pipeline.encode_prompt = lambda *_, **__: (*texts, *pooled)
        return {"prompt": ["a prompt"] * request.prompts}
    found = {"prompt_embeds": fx.normal(request.prompts, TOKENS, TEXT)}
    if "lcm" not in traits:
        found["negative_prompt_embeds"] = fx.normal(request.prompts, TOKENS, TEXT, seed=2)
    if "xl" in traits:
        found["pooled_prompt_embeds"] = fx.normal(request.prompts, POOLED, seed=3)
        found["negative_pooled_prompt_embeds"] = fx.normal(request.prompts, POOLED, seed=4)
    return found


def _control(
    traits: frozenset[str], fx: Framework, prompts: int, accepted: set[str]
) -> dict[str, Any]:
    pictures = [fx.uniform(prompts, 3, PIXELS, PIXELS, seed=seed) for seed in (6, 7)]
    if "union" in traits:
        return {"control_image": pictures, "control_mode": [0, 3]}
    name = "control_image" if "control_image" in accepted else "image"
    return {name: pictures if "multi" in traits else pictures[0]}


def _image_prompts(traits: frozenset[str], fx: Framework, request: Request) -> dict[str, Any]:
    """Return the embeddings of pictures for IP-Adapters: one, and four for a second adapter."""
    counts = [1, 4] if "two" in traits else [2 if "masks" in traits else 1]
    both = [fx.normal(2, count, IMAGE, seed=8 + count) for count in counts]
    found: dict[str, Any] = {
        "ip_adapter_image_embeds": [x if request.guided else x[1:] for x in both]
    }
    if "masks" in traits:
        mask = fx.zeros_and_box(1, 2, PIXELS, PIXELS)
        found["cross_attention_kwargs"] = {"ip_adapter_masks": [mask]}
    return found


def _entry(class_name: str, *traits: str, variant: str = "", **more: Any) -> Entry:
    marks = frozenset(traits)
    if "guess" in marks:
        more["saves_less"] = "the ControlNet gets the conditional rows alone, and keeps them"
    return Entry(
        class_name,
        partial(_build, class_name, marks),
        partial(_edit_arguments if "edits" in marks else _arguments, marks),
        variant=variant,
        **more,
    )


_TORCH = ("torch",)
_PAIRS = {
    case: "with guidance, the pipeline itself pairs rows of different prompts or images: it "
    "repeats each row of the latents, but puts all the negative embeddings first"
    for case in ("two prompts", "two images per prompt")
}
_ONE_IMAGE = {"two images per prompt": "the pipeline's call has no such argument"}

ENTRIES = [
    _entry("StableDiffusionPipeline"),
    _entry("StableDiffusionPipeline", "rescale", variant="guidance_rescale"),
    _entry("StableDiffusionPipeline", "order-2", variant="order-2 scheduler"),
    _entry("StableDiffusionPipeline", "ip-adapter", variant="IP-Adapter"),
    _entry("StableDiffusionPipeline", "ip-adapter", "two", variant="two IP-Adapters"),
    _entry(
        "StableDiffusionPipeline",
        "ip-adapter",
        "masks",
        variant="IP-Adapter masks",
        frameworks=_TORCH,
    ),
    _entry("StableDiffusionImg2ImgPipeline", "image"),
    _entry("StableDiffusionInpaintPipeline", "image", "mask"),
    _entry("StableDiffusionInpaintPipeline", "image", "mask", "9", variant="9 channels"),
    _entry("StableDiffusionDepth2ImgPipeline", "image", "depth"),
    _entry("StableDiffusionInstructPix2PixPipeline", "image", "8"),
    _entry("StableDiffusionXLPipeline", "xl"),
    _entry("StableDiffusionXLPipeline", "xl", "rescale", variant="guidance_rescale"),
    _entry("StableDiffusionXLPipeline", "xl", "order-2", variant="order-2 scheduler"),
    _entry(
        "StableDiffusionXLPipeline",
        "xl",
        "sizes",
        variant="negative sizes",
        off_differs="for several rows, the pipeline repeats the pair of time ids as a whole, so "
        "that some conditional rows have the negative ones; without guidance there are none",
    ),
    _entry("StableDiffusionXLPipeline", "xl", "ip-adapter", variant="IP-Adapter"),
    _entry("StableDiffusionXLPipeline", "xl", "ip-adapter", "two", variant="two IP-Adapters"),
    _entry("StableDiffusionXLImg2ImgPipeline", "xl", "image"),
    _entry(
        "StableDiffusionXLImg2ImgPipeline", "xl", "image", "aesthetic", variant="aesthetic score"
    ),
    _entry("StableDiffusionXLInpaintPipeline", "xl", "image", "mask"),
    _entry("StableDiffusionXLInpaintPipeline", "xl", "image", "mask", "9", variant="9 channels"),
    _entry("StableDiffusionControlNetPipeline", "controlnet"),
    _entry("StableDiffusionControlNetPipeline", "controlnet", "guess", variant="guess mode"),
    _entry("StableDiffusionControlNetPipeline", "controlnet", "multi", variant="two ControlNets"),
    _entry(
        "StableDiffusionControlNetPipeline",
        "controlnet",
        "multi",
        "guess",
        variant="two ControlNets, guess mode",
    ),
    _entry("StableDiffusionControlNetPipeline", "controlnet", "ip-adapter", variant="IP-Adapter"),
    _entry("StableDiffusionControlNetImg2ImgPipeline", "controlnet", "image"),
    _entry("StableDiffusionControlNetInpaintPipeline", "controlnet", "image", "mask"),
    _entry(
        "StableDiffusionControlNetInpaintPipeline",
        "controlnet",
        "image",
        "mask",
        "9",
        variant="9 channels",
    ),
    _entry("StableDiffusionXLControlNetPipeline", "xl", "controlnet"),
    _entry(
        "StableDiffusionXLControlNetPipeline", "xl", "controlnet", "guess", variant="guess mode"
    ),
    _entry(
        "StableDiffusionXLControlNetPipeline",
        "xl",
        "controlnet",
        "multi",
        variant="two ControlNets",
    ),
    _entry(
        "StableDiffusionXLControlNetPipeline",
        "xl",
        "controlnet",
        "ip-adapter",
        variant="IP-Adapter",
    ),
    _entry("StableDiffusionXLControlNetImg2ImgPipeline", "xl", "controlnet", "image"),
    _entry("StableDiffusionXLControlNetInpaintPipeline", "xl", "controlnet", "image", "mask"),
    _entry(
        "StableDiffusionXLControlNetInpaintPipeline",
        "xl",
        "controlnet",
        "image",
        "mask",
        "9",
        "guess",
        variant="9 channels, guess mode",
    ),
    _entry("StableDiffusionXLControlNetUnionPipeline", "xl", "controlnet", "union"),
    _entry(
        "StableDiffusionXLControlNetUnionPipeline",
        "xl",
        "controlnet",
        "union",
        "multi",
        variant="two ControlNets",
        frameworks=_TORCH,  # mindone's loop looks in the pair for a part of a single one
    ),
    _entry("StableDiffusionXLControlNetUnionImg2ImgPipeline", "xl", "controlnet", "union", "image"),
    _entry(
        "StableDiffusionXLControlNetUnionInpaintPipeline",
        "xl",
        "controlnet",
        "union",
        "image",
        "mask",
    ),
    _entry("StableDiffusionControlNetXSPipeline", "controlnet", "xs"),
    _entry("StableDiffusionXLControlNetXSPipeline", "xl", "controlnet", "xs"),
    _entry("AltDiffusionPipeline", frameworks=_TORCH),
    _entry("AltDiffusionImg2ImgPipeline", "image", frameworks=_TORCH),
    _entry("StableDiffusionLDM3DPipeline", "ldm3d"),
    _entry("StableDiffusionPanoramaPipeline", "panorama", impossible=_PAIRS),
    _entry(
        "StableDiffusionPanoramaPipeline",
        "panorama",
        "two views",
        variant="two views a batch",
        impossible=_PAIRS,
    ),
    _entry("KolorsPipeline", "xl", "kolors"),
    _entry("KolorsPipeline", "xl", "kolors", "ip-adapter", variant="IP-Adapter"),
    _entry("KolorsImg2ImgPipeline", "xl", "kolors", "image"),
    _entry("LEditsPPPipelineStableDiffusion", "edits", impossible=_ONE_IMAGE),
    _entry(
        "LEditsPPPipelineStableDiffusionXL",
        "edits",
        "xl",
        impossible={
            **_ONE_IMAGE,
            "two prompts": "of two pictures, the pipeline itself makes too many time ids",
        },
    ),
    _entry("LatentConsistencyModelPipeline", "lcm"),
    _entry("LatentConsistencyModelImg2ImgPipeline", "lcm", "image"),
]
