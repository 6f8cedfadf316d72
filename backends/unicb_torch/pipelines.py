"""Tiny random-weight diffusers pipelines, built from configurations, without any download."""

from __future__ import annotations

import string
from typing import Any

import diffusers
import tokenizers
import torch
import transformers

#: kind -> (pipeline class, what is special about it)
KINDS: dict[str, tuple[str, frozenset[str]]] = {
    "text2img": ("StableDiffusionPipeline", frozenset()),
    "order-2": ("StableDiffusionPipeline", frozenset({"order-2"})),
    "rescale": ("StableDiffusionPipeline", frozenset({"rescale"})),
    "prompts": ("StableDiffusionPipeline", frozenset({"prompts"})),
    "ip-adapter": ("StableDiffusionPipeline", frozenset({"ip-adapter"})),
    "img2img": ("StableDiffusionImg2ImgPipeline", frozenset({"image"})),
    "inpaint": ("StableDiffusionInpaintPipeline", frozenset({"image", "mask"})),
    "inpaint-9": ("StableDiffusionInpaintPipeline", frozenset({"image", "mask", "9"})),
    "controlnet": ("StableDiffusionControlNetPipeline", frozenset({"controlnet"})),
    "controlnet-guess": ("StableDiffusionControlNetPipeline", frozenset({"controlnet", "guess"})),
    "controlnet-multi": ("StableDiffusionControlNetPipeline", frozenset({"controlnet", "multi"})),
    "controlnet-img2img": (
        "StableDiffusionControlNetImg2ImgPipeline",
        frozenset({"controlnet", "image"}),
    ),
    "controlnet-inpaint": (
        "StableDiffusionControlNetInpaintPipeline",
        frozenset({"controlnet", "image", "mask"}),
    ),
    "xl-text2img": ("StableDiffusionXLPipeline", frozenset({"xl"})),
    "xl-rescale": ("StableDiffusionXLPipeline", frozenset({"xl", "rescale"})),
    "xl-ip-adapter": ("StableDiffusionXLPipeline", frozenset({"xl", "ip-adapter"})),
    "xl-img2img": ("StableDiffusionXLImg2ImgPipeline", frozenset({"xl", "image"})),
    "xl-inpaint": ("StableDiffusionXLInpaintPipeline", frozenset({"xl", "image", "mask"})),
    "xl-inpaint-9": ("StableDiffusionXLInpaintPipeline", frozenset({"xl", "image", "mask", "9"})),
    "xl-controlnet": ("StableDiffusionXLControlNetPipeline", frozenset({"xl", "controlnet"})),
    "xl-controlnet-multi": (
        "StableDiffusionXLControlNetPipeline",
        frozenset({"xl", "controlnet", "multi"}),
    ),
    "xl-controlnet-img2img": (
        "StableDiffusionXLControlNetImg2ImgPipeline",
        frozenset({"xl", "controlnet", "image"}),
    ),
    "xl-controlnet-inpaint": (
        "StableDiffusionXLControlNetInpaintPipeline",
        frozenset({"xl", "controlnet", "image", "mask"}),
    ),
}

PIXELS, TOKENS = 16, 12
TEXT_WIDTH, POOLED_WIDTH, IMAGE_WIDTH = 8, 8, 6


def build(kind: str) -> Any:
    """A tiny pipeline, all but one kind without text encoders: they are called with embeddings."""
    class_name, traits = KINDS[kind]
    torch.manual_seed(0)
    parts: dict[str, Any] = {
        "unet": _unet(traits),
        "vae": _vae(traits),
        "scheduler": _scheduler(traits),
    }
    if "controlnet" in traits:
        nets = [_controlnet(traits) for _ in range(2 if "multi" in traits else 1)]
        parts["controlnet"] = nets if "multi" in traits else nets[0]
    if "prompts" in traits:
        parts |= {"text_encoder": _text_encoder(), "tokenizer": _tokenizer()}
    else:
        parts |= dict.fromkeys(("text_encoder", "tokenizer"))
    if "xl" in traits:
        parts |= dict.fromkeys(("text_encoder_2", "tokenizer_2"))
        if "controlnet" in traits or "image" not in traits:
            parts["add_watermarker"] = False
    else:
        parts |= {"safety_checker": None, "feature_extractor": None}
        parts["requires_safety_checker"] = False
    pipeline = getattr(diffusers, class_name)(**parts)
    if "ip-adapter" in traits:
        pipeline.unet._load_ip_adapter_weights([_ip_adapter(pipeline.unet)])
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _blocks(traits: frozenset[str]) -> dict[str, Any]:
    """What a UNet and its ControlNet have in common."""
    config: dict[str, Any] = {
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "cross_attention_dim": TEXT_WIDTH,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
    }
    if "xl" in traits:
        time_width = 4
        config |= {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": time_width,
            "projection_class_embeddings_input_dim": 6 * time_width + POOLED_WIDTH,
            "use_linear_projection": True,
        }
    return config


def _unet(traits: frozenset[str]) -> Any:
    return diffusers.UNet2DConditionModel(
        sample_size=PIXELS // 2,
        in_channels=9 if "9" in traits else 4,
        out_channels=4,
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        **_blocks(traits),
    ).eval()


def _controlnet(traits: frozenset[str]) -> Any:
    net = diffusers.ControlNetModel(
        in_channels=4, conditioning_embedding_out_channels=(4, 8), **_blocks(traits)
    )
    with torch.no_grad():
        for parameter in net.parameters():
            if not parameter.any():  # a ControlNet starts with zeros, and does nothing
                parameter.normal_(std=0.1)
    return net.eval()


def _vae(traits: frozenset[str]) -> Any:
    return diffusers.AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=PIXELS,
        scaling_factor=0.13025 if "xl" in traits else 0.18215,
    ).eval()


def _tokenizer() -> Any:
    """One token for each letter; made here, since tokenizers come with files otherwise."""
    letters = ["[PAD]", "[UNK]", *string.printable]
    vocabulary = {letter: index for index, letter in enumerate(letters)}
    split = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    split.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex("."), "isolated")
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]"}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=split, model_max_length=TOKENS, **special
    )


def _text_encoder() -> Any:
    config = transformers.CLIPTextConfig(
        vocab_size=2 + len(string.printable),
        hidden_size=TEXT_WIDTH,
        intermediate_size=TEXT_WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=TOKENS,
    )
    return transformers.CLIPTextModel(config).eval()


def _scheduler(traits: frozenset[str]) -> Any:
    kind = diffusers.HeunDiscreteScheduler if "order-2" in traits else diffusers.DDIMScheduler
    betas = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    return kind(steps_offset=1, clip_sample=False, **betas)


def _ip_adapter(unet: Any) -> dict[str, dict[str, torch.Tensor]]:
    """Random weights in the layout of an IP-Adapter file with four image tokens."""
    layers: dict[str, torch.Tensor] = {}
    key = 1
    for name in unet.attn_processors:
        if name.endswith("attn1.processor"):
            continue
        width = unet.get_submodule(name.removesuffix(".processor")).to_q.out_features
        for part in ("to_k_ip", "to_v_ip"):
            layers[f"{key}.{part}.weight"] = torch.randn(width, TEXT_WIDTH)
        key += 2
    projection = {
        "proj.weight": torch.randn(4 * TEXT_WIDTH, IMAGE_WIDTH),
        "proj.bias": torch.randn(4 * TEXT_WIDTH),
        "norm.weight": torch.ones(TEXT_WIDTH),
        "norm.bias": torch.zeros(TEXT_WIDTH),
    }
    return {"image_proj": projection, "ip_adapter": layers}
