"""Image pipelines on transformers that belong to no larger family."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock, patch

import numpy as np

from zoo.entry import Entry, Request
from zoo.framework import Framework

TEXT = 8
CHANNELS = 4
TORCH = ("torch",)
#: Numbers that split a head of 8 into the axes of a rotary embedding.
AXES = (4, 2, 2)

Build = Callable[[Framework], Any]
Arguments = Callable[[Framework, Any, Request], dict[str, Any]]


def _length(request: Request) -> int:
    """Count the text tokens: as many as the doubled batch has rows."""
    return 2 * request.rows


def _scheduler(fx: Framework) -> Any:
    return fx.scheduler("FlowMatchEulerDiscreteScheduler")


def _vae(fx: Framework, **more: Any) -> Any:
    config = {
        "block_out_channels": (4, 4),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "latent_channels": CHANNELS,
        "norm_num_groups": 2,
        "sample_size": 8,
        "shift_factor": 0.1,
    }
    return fx.model("AutoencoderKL", **{**config, **more})


def _picture(width: int = 16, height: int = 8, seed: int = 3) -> Any:
    from PIL import Image

    pixels = np.random.default_rng(seed).integers(0, 255, size=(height, width, 3))
    return Image.fromarray(pixels.astype(np.uint8))


def _common(fx: Framework, request: Request) -> dict[str, Any]:
    return {
        "num_inference_steps": request.steps,
        "guidance_scale": 5.0 if request.guided else 1.0,
        "generator": fx.generator(),
        "output_type": "latent",
    }


def _words(request: Request) -> list[str]:
    return [f"picture {i}" for i in range(request.prompts)]


def _mask(fx: Framework, rows: int, length: int, hidden: int = 0) -> Any:
    """Return an attention mask that hides the last ``hidden`` tokens of the first row."""
    array = np.ones((rows, length), dtype=bool)
    if hidden:
        array[0, length - hidden :] = False
    return fx.tensor(array, "bool")


# Bria


def _bria(fx: Framework) -> Any:
    transformer = fx.model(
        "BriaTransformer2DModel",
        in_channels=4 * CHANNELS,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=TEXT,
        axes_dims_rope=list(AXES),
    )
    pipeline = fx.pipeline(
        "BriaPipeline",
        transformer=transformer,
        scheduler=_scheduler(fx),
        vae=_vae(fx),
        text_encoder=None,
        tokenizer=None,
    )

    def encoded(prompt: list[str], num_images_per_prompt: int, **_: Any) -> Any:
        rows = len(prompt) * num_images_per_prompt
        return fx.normal(rows, 2 * rows, TEXT, seed=1 if "picture" in prompt[0] else 2)

    pipeline._get_t5_prompt_embeds = encoded
    return pipeline


def _embeds(fx: Framework, request: Request, shape: tuple[int, ...] = ()) -> dict[str, Any]:
    """Return the embeddings of the prompts; ``shape`` of one row."""
    shape = (request.prompts, *(shape or (_length(request), TEXT)))
    return {
        "prompt_embeds": fx.normal(*shape),
        "negative_prompt_embeds": fx.normal(*shape, seed=2),
    }


def _bria_arguments(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    # By words: the pipeline does not repeat embeddings that it is given.
    return {
        **_common(fx, request),
        "prompt": _words(request),
        "negative_prompt": ["noise"] * request.prompts,
        "num_images_per_prompt": request.images,
        "height": 8,
        "width": 16,
    }


# Bria FIBO


def _encoded_layers(
    fx: Framework,
    prompt: Any,
    guidance_scale: float,
    num_images_per_prompt: int,
    **_: Any,
) -> tuple[Any, ...]:
    """Return what FIBO's ``encode_prompt`` returns."""
    rows = (1 if isinstance(prompt, str) else len(prompt)) * num_images_per_prompt
    length = 2 * rows
    guided = guidance_scale > 1

    def layers(seed: int) -> list[Any]:
        return [fx.normal(rows, length, TEXT, seed=seed + i) for i in range(2)]

    return (
        fx.normal(rows, length, TEXT),
        fx.normal(rows, length, TEXT, seed=2) if guided else None,
        fx.tensor(np.zeros((rows, length, 3))),
        fx.tensor(np.ones((rows, length))),
        fx.tensor(np.arange(length)[None].repeat(rows, 0) < length - 1) if guided else None,
        layers(10),
        layers(20) if guided else None,
    )


def _fibo(fx: Framework, name: str) -> Any:
    transformer = fx.model(
        "BriaFiboTransformer2DModel",
        in_channels=CHANNELS,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=TEXT,
        text_encoder_dim=TEXT,
        axes_dims_rope=list(AXES),
    )
    pipeline = fx.pipeline(
        name,
        transformer=transformer,
        scheduler=_scheduler(fx),
        vae=None,
        text_encoder=None,
        tokenizer=None,
    )
    pipeline.encode_prompt = partial(_encoded_layers, fx)
    return pipeline


def _fibo_arguments(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    words = [f'{{"edit_instruction": "{word}"}}' for word in _words(request)]
    return {
        **_common(fx, request),
        "prompt": words,
        "num_images_per_prompt": request.images,
        "height": 32,
        "width": 64,
    }


def _fibo_reference(fx: Framework) -> Any:
    pipeline = _fibo(fx, "BriaFiboEditPipeline")

    def encoded(image: Any, reference_index: int, **_: Any) -> tuple[Any, Any]:
        ids = np.zeros((4, 3))
        ids[:, 0], ids[:, 2] = reference_index, np.arange(4)
        return fx.normal(1, 4, CHANNELS, seed=5), fx.tensor(ids)

    pipeline.prepare_reference_latents = encoded
    return pipeline


def _fibo_reference_arguments(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {**_fibo_arguments(fx, pipeline, request), "image": _picture(32, 32)}


# Bria FIBO 2


def _fibo2(fx: Framework) -> Any:
    transformer = fx.model(
        "BriaFibo2Transformer2DModel",
        in_channels=CHANNELS,
        dim=16,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        cap_feat_dim=TEXT,
        injection_layer_ids=(1,),
        perceiver_num_layers=1,
        min_num_gist_tokens=2,
        max_num_gist_tokens=4,
        gist_step=1,
        gist_min_text_len=1,
        gist_max_text_len=8,
        axes_dims=AXES,
        axes_lens=(32, 16, 16),
    )
    return fx.pipeline(
        "BriaFibo2Pipeline",
        transformer=transformer,
        scheduler=_scheduler(fx),
        vae=None,
        text_encoder=None,
        processor=None,
    )


def _fibo2_arguments(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    length = _length(request)
    return {
        **_common(fx, request),
        **_embeds(fx, request, shape=(2, length, TEXT)),
        "prompt_embeds_mask": _mask(fx, request.prompts, length),
        "negative_prompt_embeds_mask": _mask(fx, request.prompts, length, 1),
        "num_images_per_prompt": request.images,
        "height": 32,
        "width": 64,
    }


# ERNIE


def _ernie(fx: Framework) -> Any:
    transformer = fx.model(
        "ErnieImageTransformer2DModel",
        hidden_size=16,
        num_attention_heads=2,
        num_layers=1,
        ffn_hidden_size=16,
        in_channels=4 * CHANNELS,
        out_channels=4 * CHANNELS,
        text_in_dim=TEXT,
        rope_axes_dim=AXES,
    )
    return fx.pipeline(
        "ErnieImagePipeline",
        transformer=transformer,
        scheduler=_scheduler(fx),
        vae=None,
        text_encoder=None,
        tokenizer=None,
    )


def _listed_embeds(fx: Framework, request: Request) -> dict[str, Any]:
    """Return the embeddings as lists of one item a prompt, the negative ones shorter."""
    length = _length(request)

    def rows(length: int, seed: int) -> list[Any]:
        return [fx.normal(length, TEXT, seed=seed + i) for i in range(request.prompts)]

    return {
        "prompt_embeds": rows(length, 10),
        "negative_prompt_embeds": rows(length - 1, 20),
    }


def _ernie_arguments(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {
        **_common(fx, request),
        **_listed_embeds(fx, request),
        "num_images_per_prompt": request.images,
        "height": 32,
        "width": 64,
    }


# GLM


def _glm(fx: Framework) -> Any:
    transformer = fx.model(
        "GlmImageTransformer2DModel",
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        text_embed_dim=TEXT,
        time_embed_dim=8,
        condition_dim=4,
        prior_vq_quantizer_codebook_size=16,
    )
    return fx.pipeline(
        "GlmImagePipeline",
        transformer=transformer,
        scheduler=_scheduler(fx),
        vae=_vae(fx, latents_mean=(0.1,) * CHANNELS, latents_std=(1.5,) * CHANNELS),
        tokenizer=None,
        processor=None,
        text_encoder=None,
        vision_language_encoder=None,
    )


def _glm_arguments(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    ids = np.random.default_rng(4).integers(0, 16, size=(request.prompts, 8))
    return {
        **_common(fx, request),
        **_embeds(fx, request),
        "prior_token_ids": fx.tensor(ids, "int64"),
        "num_images_per_prompt": request.images,
        "height": 8,
        "width": 16,
    }


def _glm_edit_arguments(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    ids = np.random.default_rng(5).integers(0, 16, size=8)
    return {
        **_glm_arguments(fx, pipeline, request),
        "image": [[_picture(seed=i)] for i in range(request.prompts)],
        "prior_token_image_ids": [fx.tensor(ids, "int64")] * request.prompts,
        "source_image_grid_thw": [fx.tensor([[1, 2, 4]], "int64")] * request.prompts,
    }


# HiDream


def _hidream(fx: Framework, experts: int = 0) -> Any:
    transformer = fx.model(
        "HiDreamImageTransformer2DModel",
        patch_size=2,
        in_channels=CHANNELS,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        caption_channels=[TEXT, 6],
        text_emb_dim=TEXT,
        num_routed_experts=experts,
        num_activated_experts=1,
        axes_dims_rope=AXES,
        max_resolution=(8, 8),
        llama_layers=[0, 1],
    )
    if fx.name == "mindspore":
        # It gives ``reshape`` sizes that are tensors, which MindSpore 2.7.0 does not take.
        unpatchify = transformer.unpatchify
        transformer.unpatchify = lambda x, sizes, training: unpatchify(
            x, sizes.asnumpy().tolist(), training
        )
    pipeline = fx.pipeline(
        "HiDreamImagePipeline",
        transformer=transformer,
        scheduler=_scheduler(fx),
        vae=None,
        text_encoder=None,
        text_encoder_2=None,
        text_encoder_3=None,
        text_encoder_4=None,
        tokenizer=None,
        tokenizer_2=None,
        tokenizer_3=None,
        tokenizer_4=None,
    )
    pipeline.default_sample_size = 4
    return pipeline


def _hidream_arguments(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    rows, length = request.prompts, _length(request)

    def embeds(prefix: str, seed: int) -> dict[str, Any]:
        return {
            f"{prefix}prompt_embeds_t5": fx.normal(rows, length, TEXT, seed=seed),
            f"{prefix}prompt_embeds_llama3": fx.normal(2, rows, length, 6, seed=seed + 1),
            f"{prefix}pooled_prompt_embeds": fx.normal(rows, TEXT, seed=seed + 2),
        }

    return {
        **_common(fx, request),
        **embeds("", 10),
        **embeds("negative_", 20),
        "num_images_per_prompt": request.images,
        "height": 32,
        "width": 32,
    }


# HunyuanImage


def _hunyuan_transformer(fx: Framework, **more: Any) -> Any:
    config = {
        "in_channels": CHANNELS,
        "out_channels": CHANNELS,
        "num_attention_heads": 2,
        "attention_head_dim": 8,
        "num_layers": 1,
        "num_single_layers": 1,
        "num_refiner_layers": 1,
        "mlp_ratio": 1.0,
        "text_embed_dim": TEXT,
        "rope_axes_dim": (4, 4),
    }
    return fx.model("HunyuanImageTransformer2DModel", **{**config, **more})


def _guider(fx: Framework, projected_from: int) -> Any:
    """Return a guider that goes over from plain guidance to projected one at a step."""
    return fx.library.AdaptiveProjectedMixGuidance(
        guidance_scale=5.0, adaptive_projected_guidance_start_step=projected_from
    )


def _switched(pipeline: Any, request: Request) -> None:
    """The call has no argument for guidance: it is the guider's affair."""
    guider = pipeline.guider
    (guider.enable if request.guided else guider.disable)()


def _hunyuan(fx: Framework, projected_from: int) -> Any:
    return fx.pipeline(
        "HunyuanImagePipeline",
        transformer=_hunyuan_transformer(fx, text_embed_2_dim=TEXT),
        scheduler=_scheduler(fx),
        guider=_guider(fx, projected_from),
        vae=None,
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=None,
        tokenizer_2=None,
    )


def _hunyuan_common(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    _switched(pipeline, request)
    rows, length = request.prompts, _length(request)
    common = _common(fx, request)
    del common["guidance_scale"]
    return {
        **common,
        **_embeds(fx, request),
        "prompt_embeds_mask": _mask(fx, rows, length),
        "negative_prompt_embeds_mask": _mask(fx, rows, length, 1),
        "num_images_per_prompt": request.images,
        "height": 64,
        "width": 128,
    }


def _hunyuan_arguments(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    rows, length = request.prompts, _length(request)
    return {
        **_hunyuan_common(fx, pipeline, request),
        "prompt_embeds_2": fx.normal(rows, length, TEXT, seed=3),
        "prompt_embeds_mask_2": _mask(fx, rows, length),
        "negative_prompt_embeds_2": fx.normal(rows, length, TEXT, seed=4),
        "negative_prompt_embeds_mask_2": _mask(fx, rows, length, 1),
    }


def _hunyuan_refiner(fx: Framework) -> Any:
    transformer = _hunyuan_transformer(
        fx, in_channels=2 * CHANNELS, patch_size=(1, 1, 1), rope_axes_dim=AXES, guidance_embeds=True
    )
    return fx.pipeline(
        "HunyuanImageRefinerPipeline",
        transformer=transformer,
        scheduler=_scheduler(fx),
        guider=_guider(fx, 1),
        vae=None,
        text_encoder=None,
        tokenizer=None,
    )


def _hunyuan_refiner_arguments(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {
        **_hunyuan_common(fx, pipeline, request),
        "image": fx.normal(1, CHANNELS, 1, 2, 4, seed=6),
        "height": 32,
        "width": 64,
    }


# Ideogram 4


def _ideogram(fx: Framework) -> Any:
    def transformer() -> Any:
        return fx.model(
            "Ideogram4Transformer2DModel",
            in_channels=4 * CHANNELS,
            num_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            intermediate_size=16,
            adaln_dim=8,
            llm_features_dim=TEXT,
            mrope_section=(4, 2, 2),
        )

    pipeline = fx.pipeline(
        "Ideogram4Pipeline",
        transformer=transformer(),
        unconditional_transformer=transformer(),
        scheduler=_scheduler(fx),
        vae=None,
        text_encoder=None,
        tokenizer=None,
    )

    def encoded(
        prompt: list[str],
        grid_h: int,
        grid_w: int,
        max_sequence_length: int,
        device: Any,
        **_: Any,
    ) -> tuple[Any, ...]:
        rows, length = len(prompt), max_sequence_length
        features = np.zeros((rows, length + grid_h * grid_w, TEXT))
        features[:, :length] = np.random.default_rng(1).normal(size=(rows, length, TEXT))
        lengths = [length - i % 2 for i in range(rows)]
        ids = pipeline._prepare_ids(lengths, grid_h, grid_w, length, device)
        return fx.tensor(features), *ids

    pipeline.encode_prompt = encoded
    return pipeline


def _ideogram_arguments(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {
        **_common(fx, request),
        "prompt": _words(request),
        "guidance_schedule": None,
        "max_sequence_length": _length(request),
        "num_images_per_prompt": request.images,
        "height": 32,
        "width": 64,
    }


# JoyImage


def _joy_transformer(fx: Framework, name: str) -> Any:
    return fx.model(
        name,
        in_channels=CHANNELS,
        hidden_size=24,
        num_attention_heads=2,
        text_dim=TEXT,
        mlp_width_ratio=1.0,
        num_layers=1,
        rope_dim_list=[4, 4, 4],
    )


def _joy(fx: Framework) -> Any:
    return fx.pipeline(
        "JoyImageEditPipeline",
        transformer=_joy_transformer(fx, "JoyImageEditTransformer3DModel"),
        scheduler=_scheduler(fx),
        vae=None,
        text_encoder=None,
        tokenizer=None,
        processor=None,
    )


def _joy_arguments(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    length = _length(request)
    mask = _mask(fx, request.prompts, length)
    return {
        **_common(fx, request),
        **_embeds(fx, request),
        "prompt_embeds_mask": mask,
        "negative_prompt_embeds_mask": mask,
        "num_images_per_prompt": request.images,
        "latents": fx.normal(request.rows, 1, CHANNELS, 1, 4, 8, seed=3),
    }


def _joy_reference(fx: Framework) -> Any:
    """Build the pipeline with a picture to edit, whose latents stand beside those of the result."""
    pipeline = _joy(fx)
    pipeline.vae_image_processor = SimpleNamespace(
        get_default_height_width=lambda image, height, width: (32, 64),
        resize_center_crop=lambda image, size: image,
    )

    def latents(batch_size: int, *_: Any, **__: Any) -> tuple[Any, Any]:
        noise = fx.normal(batch_size, 1, CHANNELS, 1, 4, 8, seed=3)
        return noise, fx.normal(batch_size, 1, CHANNELS, 1, 4, 8, seed=4)

    pipeline.prepare_latents = latents
    return pipeline


def _joy_reference_arguments(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {**_joy_arguments(fx, pipeline, request), "image": _picture()}


def _joy_plus(fx: Framework) -> Any:
    pipeline = fx.pipeline(
        "JoyImageEditPlusPipeline",
        transformer=_joy_transformer(fx, "JoyImageEditPlusTransformer3DModel"),
        scheduler=_scheduler(fx),
        vae=fx.model(
            "AutoencoderKLWan",
            base_dim=4,
            z_dim=CHANNELS,
            dim_mult=[1, 1, 1, 1],
            num_res_blocks=1,
            temperal_downsample=[False, True, True],
            latents_mean=[0.1] * CHANNELS,
            latents_std=[1.5] * CHANNELS,
        ),
        text_encoder=None,
        tokenizer=None,
        processor=None,
    )

    def encoded(prompt: list[str], **_: Any) -> tuple[Any, Any]:
        rows = len(prompt)
        negative = "" if "picture" in prompt[0] else "negative"
        embeds = fx.normal(rows, 4, TEXT, seed=2 if negative else 1)
        return embeds, _mask(fx, rows, 4, 1 if negative else 0)

    def preprocess(image: Any) -> Any:
        array = np.asarray(image, dtype=np.float32) / 127.5 - 1
        return fx.tensor(array.transpose(2, 0, 1)[None])

    pipeline.encode_prompt_multiple_images = encoded
    # The pipeline's own processor scales every picture to a million pixels.
    pipeline.image_processor = SimpleNamespace(
        get_default_height_width=lambda image: (16, 16),
        resize_center_crop=lambda image, size: image,
        preprocess=preprocess,
    )
    return pipeline


def _joy_plus_arguments(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    # Pictures of two sizes: the rows of the batch have different lengths.
    pictures = [[_picture(16, 16), _picture(16 + 16 * i, 16)] for i in range(request.prompts)]
    return {
        **_common(fx, request),
        "prompt": _words(request),
        "images": pictures,
        "height": 32,
        "width": 32,
    }


# Krea 2


def _krea2(fx: Framework, is_distilled: bool = False) -> Any:
    transformer = fx.model(
        "Krea2Transformer2DModel",
        in_channels=4 * CHANNELS,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=16,
        timestep_embed_dim=8,
        text_hidden_dim=TEXT,
        num_text_layers=2,
        text_num_attention_heads=2,
        text_num_key_value_heads=2,
        text_intermediate_size=8,
        num_layerwise_text_blocks=1,
        num_refiner_text_blocks=1,
        axes_dims_rope=AXES,
    )
    return fx.pipeline(
        "Krea2Pipeline",
        transformer=transformer,
        scheduler=_scheduler(fx),
        vae=None,
        text_encoder=None,
        tokenizer=None,
        text_encoder_select_layers=(0, 1),
        is_distilled=is_distilled,
    )


def _krea2_arguments(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    length = _length(request)
    return {
        **_common(fx, request),
        **_embeds(fx, request, shape=(length, 2, TEXT)),
        "guidance_scale": 4.0 if request.guided else 0.0,
        "prompt_embeds_mask": _mask(fx, request.prompts, length),
        "negative_prompt_embeds_mask": _mask(fx, request.prompts, length, 1),
        "num_images_per_prompt": request.images,
        "height": 32,
        "width": 64,
    }


# OmniGen


class _Prompts:
    """Make what OmniGen's processor makes of prompts and pictures, without tokenizer and
    torchvision.

    Rows are prompts, negative prompts (one token shorter: padded on the left) and, with pictures,
    prompts of the pictures alone. Each picture fills two of the eight tokens.
    """

    LENGTH = 8

    def __init__(self, fx: Framework) -> None:
        self._fx = fx
        self.max_image_size = 1024

    def __call__(
        self,
        prompt: list[str],
        input_images: Any,
        height: int,
        width: int,
        use_img_cfg: bool,
        num_images_per_prompt: int,
        **_: Any,
    ) -> dict[str, Any]:
        batch = len(prompt) * num_images_per_prompt
        blocks = 3 if use_img_cfg else 2
        rows, length = blocks * batch, self.LENGTH
        total = length + 1 + height * width // 16 // 16
        mask = np.tril(np.ones((total, total)))[None].repeat(rows, 0)
        mask[:, length + 1 :] = 1
        positions = np.arange(total)[None].repeat(rows, 0)
        mask[batch : 2 * batch, 1:, 0] = 0
        positions[batch : 2 * batch] = np.maximum(positions[batch : 2 * batch] - 1, 0)
        with_pictures = [*range(batch), *range(2 * batch, rows)] if use_img_cfg else []
        for row in with_pictures:
            mask[row, 2:4, 2:4] = 1
        ids = np.random.default_rng(4).integers(3, 16, size=(rows, length))
        return {
            "input_ids": self._fx.tensor(ids, "int64"),
            "attention_mask": self._fx.tensor(mask),
            "position_ids": self._fx.tensor(positions, "int64"),
            "input_pixel_values": [self._fx.normal(1, 3, 16, 32, seed=i) for i in with_pictures],
            "input_image_sizes": {row: [[2, 4]] for row in with_pictures},
        }


def _omnigen(fx: Framework) -> Any:
    transformer = fx.model(
        "OmniGenTransformer2DModel",
        in_channels=CHANNELS,
        hidden_size=16,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=16,
        num_layers=1,
        pad_token_id=2,
        vocab_size=16,
        max_position_embeddings=128,
        original_max_position_embeddings=128,
        rope_scaling={"long_factor": [1.0] * 4, "short_factor": [1.0] * 4},
        pos_embed_max_size=8,
        time_step_dim=8,
    )
    module = importlib.import_module(f"{fx.library.__name__}.pipelines.omnigen.pipeline_omnigen")
    # The name is missing where torchvision is.
    with patch.object(module, "OmniGenMultiModalProcessor", Mock(), create=True):
        pipeline = fx.pipeline(
            "OmniGenPipeline",
            transformer=transformer,
            scheduler=_scheduler(fx),
            vae=_vae(
                fx,
                block_out_channels=(4,) * 4,
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
            ),
            tokenizer=None,
        )
    pipeline.multimodal_processor = _Prompts(fx)
    if fx.name == "mindspore":
        # Pictures are encoded without the generator, and so with no seed at all.
        pipeline.vae.diag_gauss_dist.deterministic = True
    return pipeline


def _omnigen_arguments(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {
        **_common(fx, request),
        "prompt": [
            f"{word} of a red cat" + " by night" * i for i, word in enumerate(_words(request))
        ],
        "num_images_per_prompt": request.images,
        "height": 32,
        "width": 64,
    }


def _omnigen_image_arguments(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    fx.seed()  # pictures are encoded without the generator
    return {
        **_omnigen_arguments(fx, pipeline, request),
        "prompt": [f"{word} like <img><|image_1|></img>" for word in _words(request)],
        "input_images": [[_picture(32, 16)]] * request.prompts,
    }


# PRX


def _prx_transformer(fx: Framework, channels: int) -> Any:
    return fx.model(
        "PRXTransformer2DModel",
        in_channels=channels,
        context_in_dim=TEXT,
        hidden_size=16,
        mlp_ratio=1.0,
        num_heads=2,
        depth=1,
        axes_dim=[4, 4],
    )


def _prx(fx: Framework) -> Any:
    return fx.pipeline(
        "PRXPipeline",
        transformer=_prx_transformer(fx, CHANNELS),
        scheduler=_scheduler(fx),
        text_encoder=None,
        tokenizer=None,
        vae=None,
    )


def _prx_pixel(fx: Framework) -> Any:
    return fx.pipeline(
        "PRXPixelPipeline",
        transformer=_prx_transformer(fx, 3),
        scheduler=_scheduler(fx),
        text_encoder=None,
        tokenizer=None,
    )


def _prx_arguments(
    fx: Framework, pipeline: Any, request: Request, width: int = 64
) -> dict[str, Any]:
    length = _length(request)
    return {
        **_common(fx, request),
        **_embeds(fx, request),
        "prompt_attention_mask": _mask(fx, request.prompts, length),
        "negative_prompt_attention_mask": _mask(fx, request.prompts, length, 1),
        "num_images_per_prompt": request.images,
        "height": width // 2,
        "width": width,
        "use_resolution_binning": False,
    }


# Z-Image


def _z_transformer(fx: Framework, **more: Any) -> Any:
    return fx.model(
        "ZImageTransformer2DModel",
        in_channels=CHANNELS,
        dim=16,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=TEXT,
        axes_dims=list(AXES),
        axes_lens=[256, 32, 32],
        **more,
    )


def _z_parts(fx: Framework, **more: Any) -> dict[str, Any]:
    return {
        "transformer": _z_transformer(fx, **more),
        "scheduler": _scheduler(fx),
        "vae": _vae(fx),
        "text_encoder": None,
        "tokenizer": None,
    }


def _z_image(fx: Framework, name: str) -> Any:
    return fx.pipeline(name, **_z_parts(fx))


def _z_controlled(fx: Framework, name: str, channels: int, noise_refiner: str | None = None) -> Any:
    controlnet = fx.model(
        "ZImageControlNetModel",
        control_layers_places=[0],
        control_refiner_layers_places=[0],
        control_in_dim=channels,
        add_control_noise_refiner=noise_refiner,
        dim=16,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
    )
    return fx.pipeline(name, controlnet=controlnet, **_z_parts(fx))


def _z_arguments(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {
        **_common(fx, request),
        **_listed_embeds(fx, request),
        "guidance_scale": 4.0 if request.guided else 0.0,
        "num_images_per_prompt": request.images,
        "height": 8,
        "width": 16,
    }


def _with(arguments: Arguments, **more: Callable[[Framework, Request], Any]) -> Arguments:
    """Return ``arguments``, and what the functions in ``more`` make."""

    def both(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
        made = {name: make(fx, request) for name, make in more.items()}
        return {**arguments(fx, pipeline, request), **made}

    return both


def _image(fx: Framework, request: Request) -> Any:
    return fx.uniform(1, 3, 8, 16)


def _hole(fx: Framework, request: Request) -> Any:
    return fx.zeros_and_box(request.rows, 1, 8, 16)


def _z_omni(fx: Framework) -> Any:
    pipeline = fx.pipeline(
        "ZImageOmniPipeline",
        siglip=None,
        siglip_processor=None,
        **_z_parts(fx, siglip_feat_dim=TEXT),
    )

    def repeated(images: list[Any], batch_size: int, shape: tuple[int, ...]) -> list[list[Any]]:
        made = [fx.normal(*shape, seed=30 + i) for i in range(len(images))]
        return [list(made) for _ in range(batch_size)]

    def latents(images: list[Any], batch_size: int, **_: Any) -> list[list[Any]]:
        return repeated(images, batch_size, (CHANNELS, 1, 4, 4))

    def features(images: list[Any], batch_size: int, **_: Any) -> list[list[Any]]:
        return repeated(images, batch_size, (2, 2, TEXT))

    pipeline.prepare_image_latents = latents
    pipeline.prepare_siglip_embeds = features
    return pipeline


def _z_omni_arguments(
    fx: Framework, pipeline: Any, request: Request, pictures: int = 0
) -> dict[str, Any]:
    def rows(length: int, seed: int) -> list[list[Any]]:
        parts = pictures + 2 if pictures else 1
        return [
            [fx.normal(length, TEXT, seed=seed + 10 * i + part) for part in range(parts)]
            for i in range(request.prompts)
        ]

    more = {"image": [_picture(64, 64, seed=i) for i in range(pictures)]} if pictures else {}
    return {
        **_z_arguments(fx, pipeline, request),
        "prompt_embeds": rows(_length(request), 100),
        "negative_prompt_embeds": rows(_length(request) - 1, 200),
        **more,
    }


_NEVER_OFF = "it computes both parts whatever the guidance scale"
_ONE_ROW = dict.fromkeys(
    ("two prompts", "two images per prompt"),
    "with guidance, the pipeline gives its transformer two timesteps for whatever number of rows",
)
_ONE_IMAGE = {"two images per prompt": "the call has no number of images per prompt"}


def _entry(name: str, build: Build, arguments: Arguments, **more: Any) -> Entry:
    return Entry(name, build, arguments, **{"frameworks": TORCH, **more})


ENTRIES = [
    Entry("BriaPipeline", _bria, _bria_arguments),
    _entry("BriaFiboPipeline", partial(_fibo, name="BriaFiboPipeline"), _fibo_arguments),
    _entry("BriaFiboEditPipeline", partial(_fibo, name="BriaFiboEditPipeline"), _fibo_arguments),
    _entry("BriaFiboEditPipeline", _fibo_reference, _fibo_reference_arguments, variant="reference"),
    _entry("BriaFibo2Pipeline", _fibo2, _fibo2_arguments),
    _entry("ErnieImagePipeline", _ernie, _ernie_arguments),
    _entry("GlmImagePipeline", _glm, _glm_arguments),
    _entry("GlmImagePipeline", _glm, _glm_edit_arguments, variant="edit"),
    Entry("HiDreamImagePipeline", _hidream, _hidream_arguments),
    Entry(
        "HiDreamImagePipeline", partial(_hidream, experts=2), _hidream_arguments, variant="experts"
    ),
    _entry("HunyuanImagePipeline", partial(_hunyuan, projected_from=9), _hunyuan_arguments),
    _entry(
        "HunyuanImagePipeline",
        partial(_hunyuan, projected_from=1),
        _hunyuan_arguments,
        variant="projected guidance",
    ),
    _entry("HunyuanImageRefinerPipeline", _hunyuan_refiner, _hunyuan_refiner_arguments),
    _entry("Ideogram4Pipeline", _ideogram, _ideogram_arguments),
    _entry("JoyImageEditPipeline", _joy, _joy_arguments),
    _entry("JoyImageEditPipeline", _joy_reference, _joy_reference_arguments, variant="reference"),
    _entry("JoyImageEditPlusPipeline", _joy_plus, _joy_plus_arguments, impossible=_ONE_IMAGE),
    _entry("Krea2Pipeline", _krea2, _krea2_arguments),
    _entry(
        "Krea2Pipeline", partial(_krea2, is_distilled=True), _krea2_arguments, variant="distilled"
    ),
    Entry("OmniGenPipeline", _omnigen, _omnigen_arguments, off_differs=_NEVER_OFF),
    Entry(
        "OmniGenPipeline",
        _omnigen,
        _omnigen_image_arguments,
        variant="input image",
        off_differs=_NEVER_OFF,
    ),
    _entry("PRXPipeline", _prx, _prx_arguments, impossible=_ONE_ROW),
    _entry("PRXPixelPipeline", _prx_pixel, partial(_prx_arguments, width=8), impossible=_ONE_ROW),
    _entry("ZImagePipeline", partial(_z_image, name="ZImagePipeline"), _z_arguments),
    _entry(
        "ZImagePipeline",
        partial(_z_image, name="ZImagePipeline"),
        _with(_z_arguments, cfg_normalization=lambda fx, request: True),
        variant="normalization",
    ),
    _entry(
        "ZImagePipeline",
        partial(_z_image, name="ZImagePipeline"),
        _with(_z_arguments, cfg_truncation=lambda fx, request: 0.6),
        variant="truncation",
        saves_less="the pipeline itself leaves the last step without guidance",
    ),
    _entry(
        "ZImageControlNetPipeline",
        partial(_z_controlled, name="ZImageControlNetPipeline", channels=CHANNELS),
        _with(_z_arguments, control_image=_image),
    ),
    _entry(
        "ZImageControlNetPipeline",
        partial(
            _z_controlled,
            name="ZImageControlNetPipeline",
            channels=2 * CHANNELS + 1,
            noise_refiner="control_layers",
        ),
        _with(_z_arguments, control_image=_image),
        variant="2.0",
    ),
    _entry(
        "ZImageControlNetInpaintPipeline",
        partial(_z_controlled, name="ZImageControlNetInpaintPipeline", channels=2 * CHANNELS + 1),
        _with(_z_arguments, control_image=_image, image=_image, mask_image=_hole),
    ),
    _entry(
        "ZImageImg2ImgPipeline",
        partial(_z_image, name="ZImageImg2ImgPipeline"),
        _with(_z_arguments, image=_image, strength=lambda fx, request: 1.0),
    ),
    _entry(
        "ZImageInpaintPipeline",
        partial(_z_image, name="ZImageInpaintPipeline"),
        _with(_z_arguments, image=_image, mask_image=_hole, strength=lambda fx, request: 1.0),
    ),
    _entry("ZImageOmniPipeline", _z_omni, _z_omni_arguments),
    _entry(
        "ZImageOmniPipeline",
        _z_omni,
        partial(_z_omni_arguments, pictures=1),
        variant="one picture",
    ),
    _entry(
        "ZImageOmniPipeline",
        _z_omni,
        partial(_z_omni_arguments, pictures=3),
        variant="three pictures",
    ),
]
