"""Stable Diffusion 3, AuraFlow, HunyuanDiT and Lumina."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np

from zoo.entry import Entry, Request
from zoo.framework import Framework

#: All of them see pictures of 4 x 4 latents, which makes 4 tokens; prompts have 4 tokens too.
#: That is as many as there are rows in a doubled batch of two.
PIXELS = 32
TOKENS = 4
TEXT = 8

Arguments = Callable[[Framework, Any, Request], dict[str, Any]]


def rows(fx: Framework, request: Request, *shape: int, seed: int, scale: float = 1.0) -> Any:
    """Make seeded numbers for each prompt, repeated for its images, as encoders return them."""
    numbers = np.random.default_rng(seed).normal(scale=scale, size=(request.prompts, *shape))
    return fx.tensor(np.repeat(numbers, request.images, axis=0))


def _mask(fx: Framework, request: Request, length: int) -> Any:
    """Return a mask of ones for the first ``length`` tokens, and zeros for the rest."""
    row = [1] * length + [0] * (TOKENS - length)
    return fx.tensor([row] * request.rows, "int64")


def encoding(pipeline: Any, *results: Any) -> None:
    """Let the pipeline's text encoding answer ``results``.

    Prompts could be passed as embeddings, but most of these classes do not repeat embeddings for
    several images per prompt.
    """
    pipeline.encode_prompt = lambda *args, **kwargs: results


def common(fx: Framework, request: Request, **more: Any) -> dict[str, Any]:
    return {
        "prompt": ["a picture"] * request.prompts,
        "num_images_per_prompt": request.images,
        "num_inference_steps": request.steps,
        "guidance_scale": 15.0 if request.guided else 1.0,
        "generator": fx.generator(),
        "output_type": "latent",
        **more,
    }


def flow(fx: Framework) -> Any:
    return fx.scheduler("FlowMatchEulerDiscreteScheduler")


def small_vae(fx: Framework, channels: int) -> Any:
    """Return a VAE of scale 8 whose answers are so large, and so sure, that all samples are the
    same.

    Some of these pipelines sample from it without their generator.
    """
    vae = fx.model(
        "AutoencoderKL",
        block_out_channels=(2, 2, 2, 2),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=channels,
        norm_num_groups=1,
        sample_size=PIXELS,
        use_quant_conv=False,
        use_post_quant_conv=False,
        scaling_factor=0.01,
        shift_factor=0.1,
    )
    means, log_variances = [100.0] * channels, [-30.0] * channels
    fx.copy_into(vae.encoder.conv_out.bias.data, fx.tensor(means + log_variances))
    return vae


# Stable Diffusion 3


def _sd3_transformer(fx: Framework, channels: int, **more: Any) -> Any:
    return fx.model(
        "SD3Transformer2DModel",
        sample_size=4,
        patch_size=2,
        in_channels=channels,
        out_channels=min(channels, 16),
        num_layers=2,
        attention_head_dim=4,
        num_attention_heads=2,
        joint_attention_dim=TEXT,
        caption_projection_dim=8,
        pooled_projection_dim=TEXT,
        pos_embed_max_size=4,
        **more,
    )


def _sd3_controlnet(fx: Framework, **more: Any) -> Any:
    config = {
        "sample_size": 4,
        "patch_size": 2,
        "in_channels": 4,
        "out_channels": 4,
        "num_layers": 1,
        "attention_head_dim": 4,
        "num_attention_heads": 2,
        "joint_attention_dim": TEXT,
        "caption_projection_dim": 8,
        "pooled_projection_dim": TEXT,
        "pos_embed_max_size": 4,
        **more,
    }
    return fx.model("SD3ControlNetModel", **config)


def sd3(name: str, fx: Framework, channels: int = 4, **more: Any) -> Any:
    parts: dict[str, Any] = {
        "transformer": _sd3_transformer(fx, channels),
        "vae": small_vae(fx, min(channels, 16)),
        "scheduler": flow(fx),
        **{f"{kind}{i}": None for kind in ("text_encoder", "tokenizer") for i in ("", "_2", "_3")},
        **more,
    }
    return fx.pipeline(name, **parts)


def _sd3_adapted(fx: Framework) -> Any:
    """Build the pipeline with an IP-Adapter of random weights."""
    pipeline = sd3("StableDiffusion3Pipeline", fx)
    models = import_module(f"{fx.library.__name__}.models.embeddings")
    attention = import_module(f"{fx.library.__name__}.models.attention_processor")
    transformer = pipeline.transformer
    width = {"hidden_size": 8, "head_dim": 4, "ip_hidden_states_dim": 8, "timesteps_emb_dim": 8}
    processors = {
        name: fx.fill(attention.SD3IPAdapterJointAttnProcessor2_0(**width))
        for name in transformer.attn_processors
    }
    transformer.set_attn_processor(processors)
    transformer.image_proj = fx.fill(
        models.IPAdapterTimeImageProjection(
            embed_dim=TEXT,
            output_dim=8,
            hidden_dim=8,
            depth=1,
            dim_head=4,
            heads=2,
            num_queries=TOKENS,
            timestep_in_dim=8,
        )
    )
    return pipeline


def _sd3_with_picture(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    both = fx.normal(2, TOKENS, TEXT, seed=5)
    embeddings = both if request.guided else both[1:]
    return sd3_arguments(fx, pipeline, request, ip_adapter_image_embeds=embeddings)


def sd3_arguments(fx: Framework, pipeline: Any, request: Request, **more: Any) -> dict[str, Any]:
    encoding(
        pipeline,
        rows(fx, request, TOKENS, TEXT, seed=1),
        rows(fx, request, TOKENS, TEXT, seed=2),
        rows(fx, request, TEXT, seed=3),
        rows(fx, request, TEXT, seed=4),
    )
    return common(fx, request, height=PIXELS, width=PIXELS, **more)


def sd3_image(fx: Framework, pipeline: Any, request: Request, **more: Any) -> dict[str, Any]:
    image = fx.uniform(1, 3, PIXELS, PIXELS)
    return sd3_arguments(fx, pipeline, request, image=image, strength=1.0, **more)


def _sd3_inpaint(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return sd3_image(fx, pipeline, request, mask_image=fx.zeros_and_box(1, 1, PIXELS, PIXELS))


def _sd3_control(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    image = fx.uniform(request.prompts, 3, PIXELS, PIXELS, seed=5)
    return sd3_arguments(fx, pipeline, request, control_image=image)


def _sd3_controls(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    images = [fx.uniform(request.prompts, 3, PIXELS, PIXELS, seed=seed) for seed in (5, 6)]
    return sd3_arguments(
        fx, pipeline, request, control_image=images, controlnet_conditioning_scale=[1.0, 0.5]
    )


def _sd3_control_inpaint(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    mask = fx.zeros_and_box(request.prompts, 1, PIXELS, PIXELS)
    return {**_sd3_control(fx, pipeline, request), "control_mask": mask}


# AuraFlow


def _aura(fx: Framework) -> Any:
    transformer = fx.model(
        "AuraFlowTransformer2DModel",
        sample_size=4,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        attention_head_dim=4,
        num_attention_heads=2,
        joint_attention_dim=TEXT,
        caption_projection_dim=8,
        pos_embed_max_size=4,
    )
    return fx.pipeline(
        "AuraFlowPipeline",
        transformer=transformer,
        scheduler=flow(fx),
        vae=None,
        text_encoder=None,
        tokenizer=None,
    )


def masked_text(
    fx: Framework, pipeline: Any, request: Request, length: int = 3, **more: Any
) -> dict[str, Any]:
    encoding(
        pipeline,
        rows(fx, request, TOKENS, TEXT, seed=1),
        _mask(fx, request, TOKENS),
        rows(fx, request, TOKENS, TEXT, seed=2),
        _mask(fx, request, length),
    )
    return common(fx, request, height=PIXELS, width=PIXELS, **more)


def _aura_arguments(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    # So small a model hardly sees the prompt: guide strongly.
    strong = {"guidance_scale": 50.0} if request.guided else {}
    return {**masked_text(fx, pipeline, request), **strong}


# HunyuanDiT

_HUNYUAN = {
    "sample_size": 4,
    "patch_size": 2,
    "in_channels": 4,
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "hidden_size": 16,
    "mlp_ratio": 1.0,
    "cross_attention_dim": TEXT,
    "cross_attention_dim_t5": 8,
    "pooled_projection_dim": 8,
    "text_len": TOKENS,
    "text_len_t5": TOKENS,
}


def hunyuan(name: str, fx: Framework, **more: Any) -> Any:
    return fx.pipeline(
        name,
        transformer=fx.model("HunyuanDiT2DModel", num_layers=4, **_HUNYUAN),
        scheduler=fx.scheduler("DDIMScheduler", clip_sample=False),
        vae=small_vae(fx, 4),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        **{f"{kind}{i}": None for kind in ("text_encoder", "tokenizer") for i in ("", "_2")},
        **more,
    )


def _hunyuan_controlnet(fx: Framework) -> Any:
    return fx.model("HunyuanDiT2DControlNetModel", transformer_num_layers=4, **_HUNYUAN)


def hunyuan_arguments(
    fx: Framework, pipeline: Any, request: Request, **more: Any
) -> dict[str, Any]:
    def encode(*args: Any, text_encoder_index: int = 0, **kwargs: Any) -> tuple[Any, ...]:
        return (
            rows(fx, request, TOKENS, TEXT, seed=1 + text_encoder_index),
            rows(fx, request, TOKENS, TEXT, seed=3 + text_encoder_index),
            _mask(fx, request, TOKENS),
            _mask(fx, request, 3),
        )

    pipeline.encode_prompt = encode
    size = {"height": PIXELS, "width": PIXELS, "use_resolution_binning": False}
    return common(fx, request, **{**size, **more})


def _hunyuan_control(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    image = fx.uniform(request.prompts, 3, PIXELS, PIXELS, seed=5)
    return hunyuan_arguments(fx, pipeline, request, control_image=image)


def _hunyuan_controls(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    images = [fx.uniform(request.prompts, 3, PIXELS, PIXELS, seed=seed) for seed in (5, 6)]
    scales = [1.0, 0.5]
    return hunyuan_arguments(
        fx, pipeline, request, control_image=images, controlnet_conditioning_scale=scales
    )


# Lumina


def _lumina(fx: Framework) -> Any:
    transformer = fx.model(
        "LuminaNextDiT2DModel",
        sample_size=4,
        patch_size=2,
        in_channels=4,
        hidden_size=16,
        num_layers=1,
        num_attention_heads=2,
        num_kv_heads=1,
        multiple_of=8,
        cross_attention_dim=TEXT,
    )
    return fx.pipeline(
        "LuminaPipeline",
        transformer=transformer,
        scheduler=flow(fx),
        vae=None,
        text_encoder=None,
        tokenizer=None,
    )


def _lumina2(fx: Framework) -> Any:
    transformer = fx.model(
        "Lumina2Transformer2DModel",
        sample_size=4,
        patch_size=2,
        in_channels=4,
        hidden_size=16,
        num_layers=1,
        num_refiner_layers=1,
        num_attention_heads=2,
        num_kv_heads=1,
        multiple_of=8,
        axes_dim_rope=(4, 2, 2),
        axes_lens=(16, 8, 8),
        cap_feat_dim=TEXT,
    )
    return fx.pipeline(
        "Lumina2Pipeline",
        transformer=transformer,
        scheduler=flow(fx),
        vae=None,
        text_encoder=None,
        tokenizer=None,
    )


def _sd3_with(name: str, channels: int = 4, **controlnets: Callable[[Framework], Any]) -> Any:
    return lambda fx: sd3(
        name, fx, channels, **{part: make(fx) for part, make in controlnets.items()}
    )


_CONTROL = "StableDiffusion3ControlNetPipeline"
_HUNYUAN_CONTROL = "HunyuanDiTControlNetPipeline"

_TORCH = ("torch",)

ENTRIES = [
    Entry("StableDiffusion3Pipeline", partial(sd3, "StableDiffusion3Pipeline"), sd3_arguments),
    Entry(
        "StableDiffusion3Pipeline",
        partial(sd3, "StableDiffusion3Pipeline"),
        partial(sd3_arguments, skip_guidance_layers=[0], skip_layer_guidance_stop=1.0),
        variant="skip-layer guidance",
        saves_less="the third call, that skips layers, goes on",
    ),
    Entry(
        "StableDiffusion3Pipeline",
        _sd3_adapted,
        _sd3_with_picture,
        variant="IP-Adapter",
        frameworks=_TORCH,  # mindone's resampler multiplies matrices that do not fit
    ),
    Entry(
        "StableDiffusion3Img2ImgPipeline",
        partial(sd3, "StableDiffusion3Img2ImgPipeline"),
        sd3_image,
    ),
    Entry(
        "StableDiffusion3InpaintPipeline",
        partial(sd3, "StableDiffusion3InpaintPipeline", channels=16),
        _sd3_inpaint,
    ),
    Entry(
        "StableDiffusion3InpaintPipeline",
        partial(sd3, "StableDiffusion3InpaintPipeline", channels=33),
        _sd3_inpaint,
        variant="33 channels",
    ),
    Entry(_CONTROL, _sd3_with(_CONTROL, controlnet=_sd3_controlnet), _sd3_control),
    Entry(
        _CONTROL,
        _sd3_with(_CONTROL, controlnet=lambda fx: [_sd3_controlnet(fx), _sd3_controlnet(fx)]),
        _sd3_controls,
        variant="two ControlNets",
    ),
    Entry(
        _CONTROL,
        _sd3_with(
            _CONTROL,
            controlnet=lambda fx: _sd3_controlnet(
                fx,
                joint_attention_dim=None,
                use_pos_embed=False,
                force_zeros_for_pooled_projection=False,
            ),
        ),
        _sd3_control,
        variant="ControlNet that sees no text",
        frameworks=_TORCH,  # mindone moves a layer to a device, which its layers cannot do
    ),
    Entry(
        "StableDiffusion3ControlNetInpaintingPipeline",
        _sd3_with(
            "StableDiffusion3ControlNetInpaintingPipeline",
            controlnet=lambda fx: _sd3_controlnet(fx, extra_conditioning_channels=1),
        ),
        _sd3_control_inpaint,
    ),
    Entry("AuraFlowPipeline", _aura, _aura_arguments),
    Entry("HunyuanDiTPipeline", partial(hunyuan, "HunyuanDiTPipeline"), hunyuan_arguments),
    Entry(
        "HunyuanDiTPipeline",
        partial(hunyuan, "HunyuanDiTPipeline"),
        partial(hunyuan_arguments, guidance_rescale=0.7),
        variant="guidance rescale",
        frameworks=_TORCH,  # mindone calls a tensor's std with an argument that it does not take
    ),
    Entry(
        _HUNYUAN_CONTROL,
        lambda fx: hunyuan(_HUNYUAN_CONTROL, fx, controlnet=_hunyuan_controlnet(fx)),
        _hunyuan_control,
    ),
    Entry(
        _HUNYUAN_CONTROL,
        lambda fx: hunyuan(
            _HUNYUAN_CONTROL,
            fx,
            controlnet=[_hunyuan_controlnet(fx), _hunyuan_controlnet(fx)],
        ),
        _hunyuan_controls,
        variant="two ControlNets",
    ),
    Entry("LuminaPipeline", _lumina, masked_text),
    Entry("Lumina2Pipeline", _lumina2, masked_text),
    Entry(
        "Lumina2Pipeline",
        _lumina2,
        partial(masked_text, cfg_trunc_ratio=0.75),
        variant="guidance truncated by the pipeline",
        saves_less="the pipeline itself leaves the last step without guidance",
    ),
]
