"""Qwen-Image and its kin: Qwen-Image 2.1, Nucleus-Image, Ovis-Image.

Prompts are strings, and the pipelines' own text encoding is replaced by one that makes embeddings
from a prompt's characters. There are 4 of text (3 of a negative prompt) and 8 of image, so that
lengths equal multiples of the batch; of several prompts, all but the first are one shorter.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from zoo.entry import Entry, Request
from zoo.framework import Framework

HEIGHT, WIDTH = 8, 16
TEXT = 16
CHANNELS = 4  # of latents; the models see them packed, 2x2 in one
MODEL: dict[str, Any] = {
    "in_channels": 4 * CHANNELS,
    "num_layers": 1,
    "attention_head_dim": 8,
    "num_attention_heads": 2,
    "axes_dims_rope": (2, 2, 4),
}
NO_NAMES = ("text_encoder", "tokenizer")
ARGUMENTS = Callable[[Framework, Any, Request], dict[str, Any]]


def _encode(
    fx: Framework, prompts: str | Sequence[str], image: Any = None, *_: Any
) -> tuple[Any, Any]:
    """Make normal rows for the prompts, and their mask."""
    texts = [prompts] if isinstance(prompts, str) else prompts
    length = 3 if texts[0].startswith("no") else 4
    rows = [
        np.random.default_rng(zlib.crc32(text.encode())).normal(size=(length, TEXT))
        for text in texts
    ]
    mask = np.ones((len(texts), length))
    mask[1:, -1] = 0
    return fx.tensor(np.stack(rows) * mask[..., None]), fx.tensor(mask, "int64")


def _common(fx: Framework, request: Request) -> dict[str, Any]:
    return {
        "prompt": [f"picture {i}" for i in range(request.prompts)],
        "negative_prompt": [f"no picture {i}" for i in range(request.prompts)],
        "num_images_per_prompt": request.images,
        "height": HEIGHT,
        "width": WIDTH,
        "num_inference_steps": request.steps,
        "generator": fx.generator(),
        "output_type": "latent",
    }


def _scheduler(fx: Framework) -> Any:
    return fx.scheduler("FlowMatchEulerDiscreteScheduler", shift=2.0)


def _vae(fx: Framework) -> Any:
    vae = fx.model(
        "AutoencoderKLQwenImage",
        base_dim=4,
        z_dim=CHANNELS,
        dim_mult=[1, 1],
        num_res_blocks=1,
        temperal_downsample=[False],
        latents_mean=[0.1] * CHANNELS,
        latents_std=[0.9] * CHANNELS,
    )
    if fx.name == "mindspore":
        # Some pipelines draw from it without their generator, and so with no seed at all.
        normal = vae.diag_gauss_dist
        normal.sample = lambda parameters, generator=None: normal.mode(parameters)
    return vae


def _model(fx: Framework, class_name: str = "QwenImageTransformer2DModel", **more: Any) -> Any:
    return fx.model(
        class_name,
        **{"out_channels": CHANNELS, **MODEL, "joint_attention_dim": TEXT, **more},
    )


def _controlnet(fx: Framework, **more: Any) -> Any:
    return fx.model("QwenImageControlNetModel", **MODEL, joint_attention_dim=TEXT, **more)


# Pipelines that take pictures as they come.


def _qwen(class_name: str, controlnet: Callable[[Framework], Any] | None = None) -> Any:
    def build(fx: Framework) -> Any:
        parts = dict.fromkeys(NO_NAMES)
        if controlnet is not None:
            parts["controlnet"] = controlnet(fx)
        vae = _vae(fx)
        if fx.name == "mindspore" and class_name == "QwenImageControlNetInpaintPipeline":
            _answer_like_torch(vae)
        pipeline = fx.pipeline(
            class_name, transformer=_model(fx), vae=vae, scheduler=_scheduler(fx), **parts
        )
        pipeline._get_qwen_prompt_embeds = lambda prompt, *_, **__: _encode(fx, prompt)
        return pipeline

    return build


def _answer_like_torch(vae: Any) -> None:
    """mindone's port of one pipeline forgets that mindone's VAE answers otherwise than torch's."""
    encode = vae.encode

    def encoded(pixels: Any) -> Any:
        (moments,) = encode(pixels)
        drawn = vae.diag_gauss_dist.sample(moments)
        return SimpleNamespace(latent_dist=SimpleNamespace(sample=lambda: drawn))

    vae.encode = encoded


def _union(fx: Framework) -> Any:
    """Give several pictures to one ControlNet."""
    return fx.library.QwenImageMultiControlNetModel([_controlnet(fx)])


def _qwen_arguments(
    image: str = "", mask: str = "", half: bool = False, images: int = 1, **more: Any
) -> ARGUMENTS:
    """Make arguments; ``image`` and ``mask`` name those that take a picture (or ``images`` of them)
    and a mask.

    ``half``: twice the steps, half of which are left out.
    """

    def arguments(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
        fx.seed()  # one pipeline draws for a picture's encoding without its generator
        made = {**_common(fx, request), "true_cfg_scale": 5.0 if request.guided else 1.0, **more}
        if image:
            pictures = [
                fx.uniform(request.prompts, 3, HEIGHT, WIDTH, seed=seed) for seed in range(images)
            ]
            made[image] = pictures[0] if images == 1 else pictures
        if mask:
            made[mask] = fx.zeros_and_box(request.prompts, 1, HEIGHT, WIDTH)
        if half:
            made |= {"num_inference_steps": 2 * request.steps, "strength": 0.5}
        return made

    return arguments


# Pipelines that stretch pictures to a million pixels, whatever their size: the encoder of pictures
# is replaced by one that shrinks them as much.


def _shrink(fx: Framework, image: Any, scale: int) -> Any:
    height, width = (2 * (size // (2 * scale)) for size in image.shape[-2:])
    return fx.normal(image.shape[0], CHANNELS, 1, height, width, seed=9)


class _Encoder:
    """A text encoder of which a pipeline asks the type of its numbers."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype


def _edit(class_name: str, scale: int = 256, processor: bool = True, **more: Any) -> Any:
    def build(fx: Framework) -> Any:
        model = _model(fx, **more)
        names = (*NO_NAMES, "vae", "processor") if processor else (*NO_NAMES, "vae")
        parts = dict.fromkeys(names)
        if class_name == "QwenImageLayeredPipeline":
            # Not to decode is offered, but fails.
            parts |= {"text_encoder": _Encoder(model.dtype), "vae": _vae(fx)}
        pipeline = fx.pipeline(class_name, transformer=model, scheduler=_scheduler(fx), **parts)
        pipeline.vae_scale_factor, pipeline.latent_channels = scale, CHANNELS
        pipeline._get_qwen_prompt_embeds = lambda prompt, *_, **__: _encode(fx, prompt)
        pipeline._encode_vae_image = lambda image, generator=None: _shrink(fx, image, scale)
        return pipeline

    return build


def _picture(height: int, width: int) -> Any:
    from PIL import Image

    pixels = np.random.default_rng(5).integers(0, 256, size=(height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def _edit_arguments(images: int = 1, mask: bool = False) -> ARGUMENTS:
    def arguments(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
        picture = _picture(16, 64)
        made = {
            **_qwen_arguments()(fx, pipeline, request),
            "image": picture if images == 1 else [picture] * images,
            "height": 512,
            "width": 2048,
        }
        if mask:
            made |= {
                "mask_image": fx.zeros_and_box(1, 1, 512, 2048),
                "num_inference_steps": 2 * request.steps,
                "strength": 0.5,
            }
        return made

    return arguments


def _layered_arguments(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    made = _qwen_arguments()(fx, pipeline, request)
    del made["height"], made["width"]
    picture = {"image": _picture(16, 16), "layers": 2, "resolution": 640}
    return {**made, **picture, "output_type": "pt"}


# Qwen-Image 2.1


class _Processor:
    """Answer what the pipeline asks of its processor when it is made."""

    def __init__(self) -> None:
        self.tokenizer = SimpleNamespace(encode=lambda text: [1])

    def apply_chat_template(self, *_: Any, **__: Any) -> list[list[int]]:
        return [[0]]


def _qwen21(fx: Framework) -> Any:
    config = {**MODEL, "in_channels": CHANNELS, "out_channels": CHANNELS, "context_in_dim": TEXT}
    pipeline = fx.pipeline(
        "QwenImage21Pipeline",
        transformer=fx.model("QwenImage21Transformer2DModel", **config),
        scheduler=_scheduler(fx),
        vae=None,
        text_encoder=None,
        processor=_Processor(),
    )

    def encode(prompt: Any, image: Any = None, device: Any = None) -> tuple[Any, Any, Any]:
        made, mask = _encode(fx, prompt)
        slots = np.zeros(tuple(mask.shape), dtype=bool)
        slots[:, 1] = image is not None
        return made, mask, fx.tensor(slots, "bool")

    pipeline._get_qwen_prompt_embeds = encode
    pipeline._encode_vae_image = lambda image, generator=None: _shrink(fx, image, 16)
    return pipeline


def _qwen21_arguments(picture: bool = False, **more: Any) -> ARGUMENTS:
    def arguments(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
        sizes = {"height": 32, "width": 64, "output_resolution": 32}
        made = {**_qwen_arguments()(fx, pipeline, request), **sizes, **more}
        return {**made, "image": _picture(32, 32)} if picture else made

    return arguments


# Nucleus and Ovis


def _embedded(fx: Framework, request: Request) -> dict[str, Any]:
    """Return the arguments with embeddings in place of prompts."""
    made = {**_common(fx, request), "guidance_scale": 5.0 if request.guided else 1.0}
    for name in ("prompt", "negative_prompt"):
        embeddings, mask = _encode(fx, made.pop(name))
        made |= {f"{name}_embeds": embeddings, f"{name}_embeds_mask": mask}
    return made


def _nucleus(fx: Framework) -> Any:
    model = _model(
        fx,
        "NucleusMoEImageTransformer2DModel",
        num_layers=2,
        dense_moe_strategy="leave_first_block_dense",
        num_experts=4,
        moe_intermediate_dim=8,
        capacity_factors=1.0,
    )
    for name, weight in model.named_parameters():
        if "experts" in name:  # left as the memory was
            fx.copy_into(weight.data, 0.1 * fx.normal(*weight.shape, seed=len(name)))
    return fx.pipeline(
        "NucleusMoEImagePipeline",
        transformer=model,
        scheduler=_scheduler(fx),
        vae=_vae(fx),
        text_encoder=None,
        processor=None,
    )


def _nucleus_arguments(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return _embedded(fx, request)


def _ovis(fx: Framework) -> Any:
    model = _model(
        fx, "OvisImageTransformer2DModel", out_channels=4 * CHANNELS, num_single_layers=1
    )
    parts = dict.fromkeys((*NO_NAMES, "vae"))
    return fx.pipeline("OvisImagePipeline", transformer=model, scheduler=_scheduler(fx), **parts)


def _ovis_arguments(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    made = {name: value for name, value in _embedded(fx, request).items() if "mask" not in name}
    return {**made, "negative_prompt": None, "height": 32, "width": 64}


_ONE = {"two prompts": "takes one prompt at a time, and says so"}

_CONTROLNET_ONCE = "the ControlNet is called once a step, for both calls of the transformer"

ENTRIES = [
    Entry("QwenImagePipeline", _qwen("QwenImagePipeline"), _qwen_arguments()),
    Entry(
        "QwenImageImg2ImgPipeline",
        _qwen("QwenImageImg2ImgPipeline"),
        _qwen_arguments("image", half=True),
    ),
    Entry(
        "QwenImageInpaintPipeline",
        _qwen("QwenImageInpaintPipeline"),
        _qwen_arguments("image", "mask_image", half=True),
    ),
    Entry(
        "QwenImageControlNetPipeline",
        _qwen("QwenImageControlNetPipeline", _controlnet),
        _qwen_arguments("control_image"),
        saves_less=_CONTROLNET_ONCE,
    ),
    Entry(
        "QwenImageControlNetPipeline",
        _qwen("QwenImageControlNetPipeline", _union),
        _qwen_arguments("control_image", images=2, controlnet_conditioning_scale=[1.0, 0.5]),
        variant="two pictures",
        saves_less=_CONTROLNET_ONCE,
    ),
    Entry(
        "QwenImageControlNetInpaintPipeline",
        _qwen(
            "QwenImageControlNetInpaintPipeline",
            lambda fx: _controlnet(fx, extra_condition_channels=4),
        ),
        _qwen_arguments("control_image", "control_mask"),
        saves_less=_CONTROLNET_ONCE,
    ),
    Entry("QwenImageEditPipeline", _edit("QwenImageEditPipeline"), _edit_arguments()),
    Entry(
        "QwenImageEditInpaintPipeline",
        _edit("QwenImageEditInpaintPipeline"),
        _edit_arguments(mask=True),
    ),
    Entry(
        "QwenImageEditPlusPipeline",
        _edit("QwenImageEditPlusPipeline"),
        _edit_arguments(),
        impossible=_ONE,
    ),
    Entry(
        "QwenImageEditPlusPipeline",
        _edit("QwenImageEditPlusPipeline", zero_cond_t=True),
        _edit_arguments(images=2),
        impossible=_ONE,
        variant="two pictures",
        frameworks=("torch",),
    ),
    Entry(
        "QwenImageLayeredPipeline",
        _edit("QwenImageLayeredPipeline", 128, use_additional_t_cond=True, use_layer3d_rope=True),
        _layered_arguments,
        frameworks=("torch",),
    ),
    Entry("QwenImage21Pipeline", _qwen21, _qwen21_arguments(), frameworks=("torch",)),
    Entry(
        "QwenImage21Pipeline",
        _qwen21,
        _qwen21_arguments(picture=True),
        variant="picture",
        frameworks=("torch",),
    ),
    Entry(
        "QwenImage21Pipeline",
        _qwen21,
        _qwen21_arguments(picture=True, use_kv_cache=False),
        variant="picture, no cache",
        frameworks=("torch",),
    ),
    Entry("NucleusMoEImagePipeline", _nucleus, _nucleus_arguments, frameworks=("torch",)),
    Entry("OvisImagePipeline", _ovis, _ovis_arguments, frameworks=("torch",)),
]
