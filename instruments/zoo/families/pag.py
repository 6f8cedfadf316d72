"""Pipelines with perturbed-attention guidance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import Any

from zoo.entry import CASES, Entry, Request
from zoo.families.diffusion_transformers import (
    common,
    encoding,
    flow,
    hunyuan,
    hunyuan_arguments,
    masked_text,
    rows,
    sd3,
    sd3_arguments,
    sd3_image,
)
from zoo.framework import Framework

PIXELS = 8
TEXT = 8
#: As many as there are rows in three blocks of two.
TOKENS = 6
#: With three frames, two blocks have as many rows of frames as a batch of six in one block.
FRAMES = 3


def _vae(fx: Framework) -> Any:
    return fx.model(
        "AutoencoderKL",
        block_out_channels=(4, 4),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=2,
        sample_size=PIXELS,
        force_upcast=False,
    )


def _unet_config(**more: Any) -> dict[str, Any]:
    return {
        "in_channels": 4,
        "block_out_channels": (4, 8),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "cross_attention_dim": TEXT,
        "attention_head_dim": 2,
        "norm_num_groups": 2,
        **more,
    }


_UP = ("CrossAttnUpBlock2D", "UpBlock2D")
_XL = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": 6 * 4 + TEXT,
}


def _unet(fx: Framework, **more: Any) -> Any:
    config = _unet_config(sample_size=PIXELS // 2, out_channels=4, up_block_types=_UP, **more)
    return fx.model("UNet2DConditionModel", **config)


def _adapt(fx: Framework, unet: Any) -> None:
    """Load random weights in the layout of an IP-Adapter's file, which makes four image tokens."""

    def weight(seed: int, *shape: int) -> Any:
        values = fx.normal(*shape, seed=seed)
        # MindSpore loads nothing but parameters.
        return import_module("mindspore").Parameter(values) if fx.name == "mindspore" else values

    layers = [
        name for name in unet.attn_processors if "attn2" in name and "motion_modules" not in name
    ]
    attention = {
        f"{2 * i + 1}.{part}.weight": weight(seed + i, 8, TEXT)
        for i in range(len(layers))
        for seed, part in ((10, "to_k_ip"), (20, "to_v_ip"))
    }
    projection = {
        "proj.weight": weight(5, 4 * TEXT, TEXT),
        "proj.bias": weight(6, 4 * TEXT),
        "norm.weight": weight(7, TEXT),
        "norm.bias": weight(8, TEXT),
    }
    unet._load_ip_adapter_weights([{"image_proj": projection, "ip_adapter": attention}])


def _adapted(build: Callable[[Framework], Any]) -> Callable[[Framework], Any]:
    def make(fx: Framework) -> Any:
        pipeline = build(fx)
        _adapt(fx, pipeline.unet)
        return pipeline

    return make


def _with_adapter(arguments: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    def both(fx: Framework, pipeline: Any, request: Request, **more: Any) -> dict[str, Any]:
        pair = fx.normal(2, 1, TEXT, seed=9)
        embeddings = [pair if request.guided else pair[1:]]
        return arguments(fx, pipeline, request, ip_adapter_image_embeds=embeddings, **more)

    return both


def _controlnet(fx: Framework, **more: Any) -> Any:
    config = _unet_config(conditioning_embedding_out_channels=(2, 2), **more)
    return fx.model("ControlNetModel", **config)


def _scheduler(fx: Framework) -> Any:
    return fx.scheduler("DDIMScheduler", clip_sample=False)


def _controlnets(fx: Framework, number: int, **more: Any) -> dict[str, Any]:
    if number == 0:
        return {}
    nets = [_controlnet(fx, **more) for _ in range(number)]
    return {"controlnet": nets if number > 1 else nets[0]}


def _sd(name: str, fx: Framework, controlnets: int = 0, **unet: Any) -> Any:
    return fx.pipeline(
        name,
        unet=_unet(fx, **unet),
        vae=_vae(fx),
        scheduler=_scheduler(fx),
        text_encoder=None,
        tokenizer=None,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        **_controlnets(fx, controlnets),
    )


def _xl(name: str, fx: Framework, controlnets: int = 0, **unet: Any) -> Any:
    return fx.pipeline(
        name,
        unet=_unet(fx, **_XL, **unet),
        vae=_vae(fx),
        scheduler=_scheduler(fx),
        text_encoder=None,
        text_encoder_2=None,
        tokenizer=None,
        tokenizer_2=None,
        **_controlnets(fx, controlnets, **_XL),
    )


def _kolors(fx: Framework) -> Any:
    # The library hides the class where sentencepiece is missing, which only its tokenizer needs.
    module = import_module(f"{fx.library.__name__}.pipelines.pag.pipeline_pag_kolors")
    pipeline = module.KolorsPAGPipeline(
        unet=_unet(fx, encoder_hid_dim=TEXT, encoder_hid_dim_type="text_proj", **_XL),
        vae=_vae(fx),
        scheduler=_scheduler(fx),
        text_encoder=None,
        tokenizer=None,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _animatediff(fx: Framework) -> Any:
    unet = fx.model(
        "UNetMotionModel",
        sample_size=PIXELS // 2,
        block_out_channels=(4, 8),
        layers_per_block=1,
        down_block_types=("DownBlockMotion", "CrossAttnDownBlockMotion"),
        up_block_types=("CrossAttnUpBlockMotion", "UpBlockMotion"),
        cross_attention_dim=TEXT,
        num_attention_heads=2,
        motion_num_attention_heads=2,
        motion_max_seq_length=8,
        norm_num_groups=2,
    )
    return fx.pipeline(
        "AnimateDiffPAGPipeline",
        unet=unet,
        motion_adapter=None,
        vae=_vae(fx),
        scheduler=_scheduler(fx),
        text_encoder=None,
        tokenizer=None,
    )


def _sana(fx: Framework) -> Any:
    transformer = fx.model(
        "SanaTransformer2DModel",
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=4,
        num_layers=2,
        num_cross_attention_heads=2,
        cross_attention_head_dim=4,
        cross_attention_dim=8,
        caption_channels=TEXT,
        mlp_ratio=1.0,
        sample_size=32,
    )
    return fx.pipeline(
        "SanaPAGPipeline",
        transformer=transformer,
        scheduler=flow(fx),
        vae=None,
        text_encoder=None,
        tokenizer=None,
    )


def _embeddings(fx: Framework, request: Request) -> list[Any]:
    # Large, for so small a UNet hardly sees the prompt.
    return [rows(fx, request, TOKENS, TEXT, seed=seed, scale=20.0) for seed in (1, 2)]


def _text(fx: Framework, pipeline: Any, request: Request, **more: Any) -> dict[str, Any]:
    encoding(pipeline, *_embeddings(fx, request))
    return common(fx, request, **more)


def _text_xl(fx: Framework, pipeline: Any, request: Request, **more: Any) -> dict[str, Any]:
    pooled = [rows(fx, request, TEXT, seed=seed) for seed in (3, 4)]
    encoding(pipeline, *_embeddings(fx, request), *pooled)
    return common(fx, request, **more)


def _frames(fx: Framework, pipeline: Any, request: Request, **more: Any) -> dict[str, Any]:
    found = _text(fx, pipeline, request, **_SIZE, num_frames=FRAMES, **more)
    del found["num_images_per_prompt"]
    return found


def _sana_arguments(fx: Framework, pipeline: Any, request: Request, **more: Any) -> dict[str, Any]:
    size = {"height": 64, "width": 64, "use_resolution_binning": False}
    return {**masked_text(fx, pipeline, request), **size, **more}


_SIZE = {"height": PIXELS, "width": PIXELS}


def _picture(fx: Framework, request: Request, seed: int = 5) -> Any:
    return fx.uniform(request.prompts, 3, PIXELS, PIXELS, seed=seed)


def _mask(fx: Framework, request: Request) -> Any:
    return fx.zeros_and_box(request.prompts, 1, PIXELS, PIXELS)


#: A perturbed attention hardly shows in so small a model.
_STRONG = 30.0

Pictures = Callable[[Framework, Request], dict[str, Any]]


def _image(fx: Framework, request: Request) -> dict[str, Any]:
    return {"image": _picture(fx, request), "strength": 1.0}


def _inpaint(fx: Framework, request: Request) -> dict[str, Any]:
    return {**_image(fx, request), "mask_image": _mask(fx, request), **_SIZE}


def _control(fx: Framework, request: Request) -> dict[str, Any]:
    return {"image": _picture(fx, request, 6)}


def _controls(fx: Framework, request: Request) -> dict[str, Any]:
    return {"image": [fx.uniform(1, 3, PIXELS, PIXELS, seed=seed) for seed in (6, 7)]}


def _control_image(fx: Framework, request: Request) -> dict[str, Any]:
    return {**_image(fx, request), "control_image": _picture(fx, request, 6), **_SIZE}


def _control_inpaint(fx: Framework, request: Request) -> dict[str, Any]:
    return {**_control_image(fx, request), "mask_image": _mask(fx, request)}


def _size(fx: Framework, request: Request) -> dict[str, Any]:
    return dict(_SIZE)


def _with_pictures(arguments: Callable[..., dict[str, Any]], pictures: Pictures) -> Any:
    def both(fx: Framework, pipeline: Any, request: Request, **more: Any) -> dict[str, Any]:
        return arguments(fx, pipeline, request, **pictures(fx, request), **more)

    return both


def _entries(
    name: str,
    build: Callable[[Framework], Any],
    arguments: Callable[..., dict[str, Any]],
    variant: str = "",
    **more: Any,
) -> list[Entry]:
    """Return the class with perturbed-attention guidance, and without."""
    kinds = {"": _STRONG, "pag_scale=0": 0.0}
    return [
        Entry(
            name,
            build,
            partial(arguments, pag_scale=scale),
            variant=", ".join(filter(None, [variant, what])),
            **more,
        )
        for what, scale in kinds.items()
    ]


def _unets(name: str, pictures: Pictures, variant: str = "", **build: Any) -> list[Entry]:
    xl = "XL" in name
    arguments = _with_pictures(_text_xl if xl else _text, pictures)
    return _entries(name, partial(_xl if xl else _sd, name, **build), arguments, variant)


def _sd3(name: str, arguments: Callable[..., dict[str, Any]]) -> list[Entry]:
    build = partial(sd3, name, pag_applied_layers="blocks.0")
    return _entries(name, build, arguments)


def _hunyuan() -> list[Entry]:
    name = "HunyuanDiTPAGPipeline"
    active, plain = _entries(name, partial(hunyuan, name), partial(hunyuan_arguments, width=48))
    alone = "perturbed-attention guidance alone fails: it is given three blocks of sizes"
    return [replace(active, off_differs=alone), plain]


_TORCH = ("torch",)
_ONE_VIDEO = {
    "two images per prompt": "the pipeline makes one video a prompt, whatever it is asked for"
}

ENTRIES = [
    *_unets("StableDiffusionPAGPipeline", _size),
    Entry(
        "StableDiffusionPAGPipeline",
        partial(_sd, "StableDiffusionPAGPipeline"),
        partial(_text, **_SIZE, pag_scale=_STRONG, pag_adaptive_scale=_STRONG / 750),
        variant="adaptive scale",
    ),
    Entry(
        "StableDiffusionPAGPipeline",
        partial(_sd, "StableDiffusionPAGPipeline"),
        partial(_text, **_SIZE, pag_scale=_STRONG, guidance_rescale=0.7),
        variant="guidance rescale",
        frameworks=_TORCH,  # mindone calls a tensor's std with an argument that it does not take
    ),
    *_entries(
        "StableDiffusionPAGPipeline",
        _adapted(partial(_sd, "StableDiffusionPAGPipeline")),
        _with_adapter(partial(_text, **_SIZE)),
        "IP-Adapter",
    ),
    *_unets("StableDiffusionPAGImg2ImgPipeline", _image),
    *_unets("StableDiffusionPAGInpaintPipeline", _inpaint),
    *_unets("StableDiffusionPAGInpaintPipeline", _inpaint, "9 channels", in_channels=9),
    *_unets("StableDiffusionControlNetPAGPipeline", _control, controlnets=1),
    *_unets("StableDiffusionControlNetPAGPipeline", _controls, "two ControlNets", controlnets=2),
    Entry(
        "StableDiffusionControlNetPAGPipeline",
        partial(_sd, "StableDiffusionControlNetPAGPipeline", controlnets=1),
        partial(_with_pictures(_text, _control), guess_mode=True),
        variant="guess mode",
        impossible=dict.fromkeys(
            CASES,
            "the pipeline itself fails: it gives the ControlNet all blocks of rows, and then "
            "puts as many zeros before its answers",
        ),
    ),
    *_unets("StableDiffusionControlNetPAGInpaintPipeline", _control_inpaint, controlnets=1),
    *_unets(
        "StableDiffusionControlNetPAGInpaintPipeline",
        _control_inpaint,
        "9 channels",
        controlnets=1,
        in_channels=9,
    ),
    *_unets("StableDiffusionXLPAGPipeline", _size),
    *_entries(
        "StableDiffusionXLPAGPipeline",
        _adapted(partial(_xl, "StableDiffusionXLPAGPipeline")),
        _with_adapter(partial(_text_xl, **_SIZE)),
        "IP-Adapter",
    ),
    *_unets("StableDiffusionXLPAGImg2ImgPipeline", _image),
    *_unets("StableDiffusionXLPAGInpaintPipeline", _inpaint),
    *_unets("StableDiffusionXLPAGInpaintPipeline", _inpaint, "9 channels", in_channels=9),
    *_unets("StableDiffusionXLControlNetPAGPipeline", _control, controlnets=1),
    *_unets("StableDiffusionXLControlNetPAGImg2ImgPipeline", _control_image, controlnets=1),
    *_entries("KolorsPAGPipeline", _kolors, partial(_text_xl, **_SIZE)),
    *_entries("AnimateDiffPAGPipeline", _animatediff, _frames, impossible=_ONE_VIDEO),
    *_entries(
        "AnimateDiffPAGPipeline",
        _adapted(_animatediff),
        _with_adapter(_frames),
        "IP-Adapter",
        impossible=_ONE_VIDEO,
    ),
    *_sd3("StableDiffusion3PAGPipeline", sd3_arguments),
    *_sd3("StableDiffusion3PAGImg2ImgPipeline", sd3_image),
    *_hunyuan(),
    # mindone's attention takes no mask for several heads but in its flash kernel.
    *_entries("SanaPAGPipeline", _sana, _sana_arguments),
]
