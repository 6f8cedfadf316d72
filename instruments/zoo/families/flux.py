"""Flux and its kin: Flux with true CFG, Kontext, ControlNets, Flux2 and Klein, Chroma.

Prompts are strings, and the pipelines' own text encoding (`_get_..._prompt_embeds`) is replaced by
one that makes embeddings from a prompt's characters. There are 4 of text and 8 of image, so that
lengths equal multiples of the batch.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np

from zoo.entry import Entry, Request
from zoo.framework import Framework

HEIGHT, WIDTH = 8, 16
LENGTH, TEXT, POOLED = 4, 16, 8
CHANNELS = 4  # of latents; the models see them packed, 2x2 in one
MODEL: dict[str, Any] = {
    "in_channels": 4 * CHANNELS,
    "num_layers": 1,
    "num_single_layers": 1,
    "attention_head_dim": 8,
    "num_attention_heads": 2,
    "joint_attention_dim": TEXT,
    "axes_dims_rope": (2, 2, 4),
}
NO_NAMES = ("text_encoder", "tokenizer", "image_encoder", "feature_extractor")
TWO_NAMES = (*NO_NAMES, "text_encoder_2", "tokenizer_2")
NO_PICTURES = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
CLIP = 6
ARGUMENTS = Callable[[Framework, Any, Request], dict[str, Any]]


def _encode(fx: Framework, prompts: str | Sequence[str], images: int, *shape: int) -> Any:
    """Make normal rows of ``shape``, for every image of every prompt."""
    texts = [prompts] if isinstance(prompts, str) else prompts
    rows = [np.random.default_rng(zlib.crc32(t.encode())).normal(size=shape) for t in texts]
    return fx.tensor(np.repeat(np.stack(rows), images, axis=0))


def _mask(fx: Framework, prompts: str | Sequence[str], images: int) -> Any:
    """Return a mask of text: negative prompts are one shorter."""
    texts = [prompts] if isinstance(prompts, str) else prompts
    rows = [[True] * (LENGTH - 1) + [not text.startswith("no")] for text in texts]
    return fx.tensor(np.repeat(np.array(rows), images, axis=0), "bool")


def _prompts(request: Request) -> dict[str, Any]:
    return {
        "prompt": [f"picture {i}" for i in range(request.prompts)],
        "negative_prompt": [f"no picture {i}" for i in range(request.prompts)],
        "num_images_per_prompt": request.images,
    }


def _scheduler(fx: Framework) -> Any:
    return fx.scheduler("FlowMatchEulerDiscreteScheduler", shift=2.0)


def _vae(fx: Framework, class_name: str = "AutoencoderKL", **more: Any) -> Any:
    return fx.model(
        class_name,
        block_out_channels=(4, 4),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        latent_channels=CHANNELS,
        norm_num_groups=2,
        sample_size=WIDTH,
        **more,
    )


def _parts(fx: Framework, names: tuple[str, ...], **parts: Any) -> dict[str, Any]:
    made = {
        "vae": _vae(fx, use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.1),
        "scheduler": _scheduler(fx),
    }
    return {**dict.fromkeys(names), **made, **parts}


# Flux


def _flux_model(fx: Framework, **more: Any) -> Any:
    config = {**MODEL, "pooled_projection_dim": POOLED, "guidance_embeds": True, **more}
    return fx.model("FluxTransformer2DModel", **config)


def _flux(
    class_name: str,
    channels: int = 4 * CHANNELS,
    controlnets: int = 0,
    names: tuple[str, ...] = TWO_NAMES,
    **more: Any,
) -> Callable[[Framework], Any]:
    def build(fx: Framework) -> Any:
        model = _flux_model(fx, in_channels=channels, out_channels=4 * CHANNELS)
        parts = _parts(fx, names, transformer=model, **more)
        nets = [_flux_controlnet(fx) for _ in range(controlnets)]
        if nets:
            parts["controlnet"] = nets[0] if controlnets == 1 else nets
        pipeline = fx.pipeline(class_name, **parts)
        pipeline._get_t5_prompt_embeds = lambda prompt, num_images_per_prompt=1, **_: _encode(
            fx, prompt, num_images_per_prompt, LENGTH, TEXT
        )
        pipeline._get_clip_prompt_embeds = lambda prompt, num_images_per_prompt=1, **_: _encode(
            fx, prompt, num_images_per_prompt, POOLED
        )
        return pipeline

    return build


def _flux_controlnet(fx: Framework) -> Any:
    return fx.model(
        "FluxControlNetModel", **MODEL, pooled_projection_dim=POOLED, guidance_embeds=True
    )


def _common(fx: Framework, request: Request) -> dict[str, Any]:
    return {
        **_prompts(request),
        "height": HEIGHT,
        "width": WIDTH,
        "num_inference_steps": request.steps,
        "guidance_scale": 3.5,
        "generator": fx.generator(),
        "output_type": "latent",
    }


def _image(fx: Framework, request: Request, seed: int = 5) -> Any:
    return fx.uniform(request.prompts, 3, HEIGHT, WIDTH, seed=seed)


def _box(fx: Framework, request: Request) -> Any:
    return fx.zeros_and_box(request.prompts, 1, HEIGHT, WIDTH)


def _half(request: Request) -> dict[str, Any]:
    """Ask for twice the steps, half of which are left out."""
    return {"num_inference_steps": 2 * request.steps, "strength": 0.5}


def _flux_arguments(
    image: str = "",
    mask: bool = False,
    half: bool = False,
    images: int = 1,
    true_cfg: bool = True,
    **more: Any,
) -> ARGUMENTS:
    """Make arguments; ``image`` names the one that takes a picture (or ``images`` of them)."""

    def arguments(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
        made = {**_common(fx, request), **more}
        if true_cfg:
            made["true_cfg_scale"] = 5.0 if request.guided else 1.0
        else:
            del made["negative_prompt"]
        if image:
            pictures = [_image(fx, request, seed) for seed in range(images)]
            made[image] = pictures[0] if images == 1 else pictures
        if mask:
            made["mask_image"] = _box(fx, request)
        return {**made, **(_half(request) if half else {})}

    return arguments


def _with_ip_adapter(build: Callable[[Framework], Any], hub: str) -> Callable[[Framework], Any]:
    """Add an IP-Adapter with a picture of one token, on every double block."""

    def built(fx: Framework) -> Any:
        pipeline = build(fx)
        models = f"{fx.library.__name__}.models"
        embeddings = import_module(f"{models}.embeddings")
        processor = import_module(f"{models}.{hub}").FluxIPAdapterAttnProcessor
        model = pipeline.transformer
        width = MODEL["attention_head_dim"] * MODEL["num_attention_heads"]
        model.set_attn_processor(
            {
                name: kept
                if name.startswith("single")
                else processor(width, TEXT, num_tokens=(4,), scale=1.0)
                for name, kept in model.attn_processors.items()
            }
        )
        project = embeddings.ImageProjection(CLIP, TEXT, 4)
        model.encoder_hid_proj = embeddings.MultiIPAdapterImageProjection([project])
        fx.fill(model)
        return pipeline

    return built


def _ip_arguments(plain: ARGUMENTS) -> ARGUMENTS:
    def arguments(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
        return {
            **plain(fx, pipeline, request),
            "ip_adapter_image_embeds": [fx.normal(1, 1, CLIP, seed=11)],
            "negative_ip_adapter_image_embeds": [fx.normal(1, 1, CLIP, seed=12)],
        }

    return arguments


def _with_control(plain: ARGUMENTS) -> ARGUMENTS:
    def arguments(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
        return {**plain(fx, pipeline, request), "control_image": _image(fx, request, seed=8)}

    return arguments


def _cloze_arguments(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    made = _flux_arguments(true_cfg=False)(fx, pipeline, request)
    del made["height"], made["width"]
    prompts = made.pop("prompt")
    picture = _picture()
    examples = [[[picture, picture], [picture, None]]] * request.prompts
    return {**made, "task_prompt": prompts, "content_prompt": prompts, "image": examples}


# Flux2


def _flux2_parts(fx: Framework, **more: Any) -> dict[str, Any]:
    model = fx.model(
        "Flux2Transformer2DModel",
        **{**MODEL, "axes_dims_rope": (2, 2, 2, 2)},
        timestep_guidance_channels=8,
        **more,
    )
    return {
        "transformer": model,
        "vae": _vae(fx, "AutoencoderKLFlux2"),
        "scheduler": _scheduler(fx),
        "text_encoder": None,
        "tokenizer": None,
    }


def _klein(class_name: str) -> Callable[[Framework], Any]:
    def build(fx: Framework) -> Any:
        pipeline = fx.pipeline(class_name, **_flux2_parts(fx, guidance_embeds=False))
        pipeline._get_qwen3_prompt_embeds = lambda prompt, **_: _encode(fx, prompt, 1, LENGTH, TEXT)
        return pipeline

    return build


def _flux2(fx: Framework) -> Any:
    pipeline = fx.pipeline("Flux2Pipeline", **_flux2_parts(fx))
    if fx.name == "mindspore":
        # Its own gives ``zeros`` sizes that are tensors, which MindSpore 2.7.0 does not take.
        pipeline._unpack_latents_with_ids = partial(_unpacked, fx)
    return pipeline


def _unpacked(fx: Framework, tokens: Any, ids: Any) -> Any:
    """Put tokens ``[rows, tokens, channels]`` at the places ``[rows, tokens, (t, h, w, l)]``."""
    values, places = fx.backend.ops.to_numpy(tokens), np.asarray(ids.asnumpy())
    _, height, width, _ = places.max(axis=(0, 1)) + 1
    cells = np.zeros((len(values), values.shape[2], height, width))
    for row, place, value in zip(cells, places, values, strict=True):
        row[:, place[:, 1], place[:, 2]] = value.T
    return fx.tensor(cells)


def _embeddings(fx: Framework, request: Request) -> dict[str, Any]:
    made = _common(fx, request)
    texts = {
        "prompt_embeds": made.pop("prompt"),
        "negative_prompt_embeds": made.pop("negative_prompt"),
    }
    return {**made, **{name: _encode(fx, text, 1, LENGTH, TEXT) for name, text in texts.items()}}


def _klein_arguments(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {**_embeddings(fx, request), "guidance_scale": 5.0 if request.guided else 1.0}


def _picture() -> Any:
    from PIL import Image

    # 64 pixels is the least that the pipelines take.
    pixels = np.random.default_rng(5).integers(0, 256, size=(64, 64, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def _klein_edit_arguments(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {**_klein_arguments(fx, pipeline, request), "image": _picture()}


def _klein_inpaint_arguments(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {
        **_klein_arguments(fx, pipeline, request),
        "image": fx.uniform(1, 3, HEIGHT, WIDTH, seed=5),
        "mask_image": fx.zeros_and_box(1, 1, HEIGHT, WIDTH),
        **_half(request),
    }


def _klein_reference_arguments(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    made = _klein_inpaint_arguments(fx, pipeline, request)
    return {**made, "image_reference": fx.uniform(1, 3, HEIGHT, WIDTH, seed=6)}


def _flux2_arguments(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    made = _embeddings(fx, request)
    del made["negative_prompt_embeds"]
    return made


def _klein_kv_arguments(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    made = _flux2_arguments(fx, pipeline, request)
    del made["guidance_scale"]
    return {**made, "image": _picture()}


# Chroma


def _chroma(class_name: str) -> Callable[[Framework], Any]:
    def build(fx: Framework) -> Any:
        model = fx.model(
            "ChromaTransformer2DModel",
            **MODEL,
            approximator_num_channels=16,
            approximator_hidden_dim=16,
            approximator_layers=1,
        )
        if "Inpaint" in class_name:
            # The pipeline asks the configuration for what the model's class does not know.
            model.register_to_config(guidance_embeds=False)
        pipeline = fx.pipeline(class_name, **_parts(fx, NO_NAMES, transformer=model))
        pipeline._get_t5_prompt_embeds = lambda prompt, num_images_per_prompt=1, **_: (
            _encode(fx, prompt, num_images_per_prompt, LENGTH, TEXT),
            _mask(fx, prompt, num_images_per_prompt),
        )
        return pipeline

    return build


def _chroma_arguments(plain: ARGUMENTS) -> ARGUMENTS:
    def arguments(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
        made = plain(fx, pipeline, request)
        del made["true_cfg_scale"]
        return {**made, "guidance_scale": 5.0 if request.guided else 1.0}

    return arguments


_TEXT2IMG = _flux_arguments()
_IMG2IMG = _flux_arguments("image", half=True)
_INPAINT = _flux_arguments("image", mask=True, half=True)
_KONTEXT: dict[str, Any] = {"max_area": HEIGHT * WIDTH, "_auto_resize": False}

_CONTROLNET_ONCE = "the ControlNet is called once a step, for both calls of the transformer"

ENTRIES = [
    Entry("FluxPipeline", _flux("FluxPipeline"), _TEXT2IMG),
    Entry(
        "FluxPipeline",
        _with_ip_adapter(_flux("FluxPipeline"), "transformers.transformer_flux"),
        _ip_arguments(_TEXT2IMG),
        variant="ip-adapter",
    ),
    Entry("FluxImg2ImgPipeline", _flux("FluxImg2ImgPipeline"), _IMG2IMG),
    Entry("FluxInpaintPipeline", _flux("FluxInpaintPipeline"), _INPAINT),
    Entry(
        "FluxKontextPipeline", _flux("FluxKontextPipeline"), _flux_arguments("image", **_KONTEXT)
    ),
    Entry(
        "FluxKontextPipeline",
        _flux("FluxKontextPipeline"),
        _flux_arguments(**_KONTEXT),
        variant="no picture",
    ),
    Entry(
        "FluxKontextInpaintPipeline",
        _flux("FluxKontextInpaintPipeline"),
        _flux_arguments("image", mask=True, half=True, **_KONTEXT),
    ),
    Entry(
        "FluxControlNetPipeline",
        _flux("FluxControlNetPipeline", controlnets=1),
        _flux_arguments("control_image"),
        saves_less=_CONTROLNET_ONCE,
    ),
    Entry(
        "FluxControlNetPipeline",
        _flux("FluxControlNetPipeline", controlnets=2),
        _flux_arguments("control_image", images=2, controlnet_conditioning_scale=[1.0, 0.5]),
        variant="two ControlNets",
        saves_less=_CONTROLNET_ONCE,
    ),
    Entry(
        "Flux2KleinPipeline", _klein("Flux2KleinPipeline"), _klein_arguments, frameworks=("torch",)
    ),
    Entry(
        "Flux2KleinPipeline",
        _klein("Flux2KleinPipeline"),
        _klein_edit_arguments,
        variant="picture",
        frameworks=("torch",),
    ),
    Entry(
        "Flux2KleinInpaintPipeline",
        _klein("Flux2KleinInpaintPipeline"),
        _klein_inpaint_arguments,
        frameworks=("torch",),
    ),
    Entry(
        "Flux2KleinInpaintPipeline",
        _klein("Flux2KleinInpaintPipeline"),
        _klein_reference_arguments,
        variant="reference",
        frameworks=("torch",),
    ),
    Entry("ChromaPipeline", _chroma("ChromaPipeline"), _chroma_arguments(_TEXT2IMG)),
    Entry(
        "ChromaPipeline",
        _with_ip_adapter(_chroma("ChromaPipeline"), "transformers.transformer_flux"),
        _ip_arguments(_chroma_arguments(_TEXT2IMG)),
        variant="ip-adapter",
    ),
    Entry("ChromaImg2ImgPipeline", _chroma("ChromaImg2ImgPipeline"), _chroma_arguments(_IMG2IMG)),
    Entry(
        "ChromaInpaintPipeline",
        _chroma("ChromaInpaintPipeline"),
        _chroma_arguments(_INPAINT),
        frameworks=("torch",),
    ),
    # Guided by an input of the model alone.
    Entry("Flux2Pipeline", _flux2, _flux2_arguments),
    Entry(
        "Flux2KleinKVPipeline",
        _klein("Flux2KleinKVPipeline"),
        _klein_kv_arguments,
        frameworks=("torch",),
    ),
    Entry(
        "FluxControlPipeline",
        _flux("FluxControlPipeline", 8 * CHANNELS, names=NO_PICTURES),
        _flux_arguments("control_image", true_cfg=False),
    ),
    Entry(
        "FluxControlImg2ImgPipeline",
        _flux("FluxControlImg2ImgPipeline", 8 * CHANNELS, names=NO_PICTURES),
        _with_control(_flux_arguments("image", half=True, true_cfg=False)),
    ),
    Entry(
        "FluxControlInpaintPipeline",
        _flux("FluxControlInpaintPipeline", 8 * CHANNELS, names=NO_PICTURES),
        _with_control(_flux_arguments("image", mask=True, half=True, true_cfg=False)),
    ),
    Entry(
        "FluxControlNetImg2ImgPipeline",
        _flux("FluxControlNetImg2ImgPipeline", controlnets=1, names=NO_PICTURES),
        _with_control(_flux_arguments("image", half=True, true_cfg=False)),
    ),
    Entry(
        "FluxControlNetInpaintPipeline",
        _flux("FluxControlNetInpaintPipeline", controlnets=1, names=NO_PICTURES),
        _with_control(_flux_arguments("image", mask=True, half=True, true_cfg=False)),
    ),
    Entry(
        "FluxFillPipeline",
        _flux("FluxFillPipeline", 12 * CHANNELS, names=NO_PICTURES),
        _flux_arguments("image", mask=True, true_cfg=False),
    ),
    Entry(
        "VisualClozeGenerationPipeline",
        _flux("VisualClozeGenerationPipeline", 12 * CHANNELS, names=NO_PICTURES, resolution=32),
        _cloze_arguments,
    ),
]
