"""Sana, Sana Sprint, Sana Video, SANA-WM."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from zoo.entry import Entry, Request
from zoo.framework import Framework

#: Latents are of 2 x 4: eight tokens, twice the rows of guidance on two prompts.
HEIGHT, WIDTH = 2, 4
TOKENS = 4
CAPTION = 8

_TRANSFORMER: dict[str, Any] = {
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": 2,
    "patch_size": 1,
    "num_attention_heads": 2,
    "attention_head_dim": 4,
    "num_cross_attention_heads": 2,
    "cross_attention_head_dim": 4,
    "cross_attention_dim": 8,
    "caption_channels": CAPTION,
}


def _pipeline(fx: Framework, class_name: str, **parts: Any) -> Any:
    usual = {"vae": None, "text_encoder": None, "tokenizer": None}
    return fx.pipeline(class_name, **{**usual, **parts})


def _masks_fit(fx: Framework, model: Any) -> Any:
    """Return ``model``; in the port, with the attention that takes masks without an accelerator
    too."""
    if fx.name == "mindspore":
        from mindone.diffusers.models.attention_processor import AttnProcessor

        for block in model.transformer_blocks:
            block.attn2.set_processor(AttnProcessor())
    return model


def _dtype(fx: Framework) -> Any:
    """Return a text encoder of which only the dtype is asked for."""
    from transformers import CLIPTextConfig

    width = {"hidden_size": 8, "intermediate_size": 8, "vocab_size": 8}
    layers = {"num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 8}
    return fx.text_model("CLIPTextModel", CLIPTextConfig(**width, **layers))


def _transformer(fx: Framework, class_name: str = "SanaTransformer2DModel", **more: Any) -> Any:
    return _masks_fit(fx, fx.model(class_name, **{**_TRANSFORMER, **more}))


def _flow(fx: Framework) -> Any:
    return fx.scheduler("FlowMatchEulerDiscreteScheduler")


def _masks(fx: Framework, rows: int) -> dict[str, Any]:
    mask = np.ones((rows, TOKENS))
    mask[:, -1] = 0
    return {
        "prompt_attention_mask": fx.tensor(mask),
        "negative_prompt_attention_mask": fx.tensor(np.ones((rows, TOKENS))),
    }


def _common(fx: Framework, request: Request) -> dict[str, Any]:
    rows = request.prompts
    return {
        "prompt_embeds": fx.normal(rows, TOKENS, CAPTION),
        "negative_prompt": None,
        "negative_prompt_embeds": fx.normal(rows, TOKENS, CAPTION, seed=2),
        **_masks(fx, rows),
        "num_inference_steps": request.steps,
        "guidance_scale": 5.0 if request.guided else 1.0,
        "generator": fx.generator(),
        "use_resolution_binning": False,
        "output_type": "latent",
    }


def _sana(fx: Framework) -> Any:
    return _pipeline(
        fx,
        "SanaPipeline",
        transformer=_transformer(fx),
        scheduler=_flow(fx),
        text_encoder=_dtype(fx),
    )


def _sana_arguments(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    factor = pipeline.vae_scale_factor
    return {
        **_common(fx, request),
        "num_images_per_prompt": request.images,
        "height": factor * HEIGHT,
        "width": factor * WIDTH,
    }


def _autoencoder(fx: Framework) -> Any:
    return fx.model(
        "AutoencoderDC",
        latent_channels=4,
        # Sizes have to be multiples of 32, and that is what six levels shrink a picture by.
        encoder_block_out_channels=(4,) * 6,
        decoder_block_out_channels=(4,) * 6,
        encoder_layers_per_block=(1,) * 6,
        decoder_layers_per_block=(1,) * 6,
        encoder_qkv_multiscales=((),) * 6,
        decoder_qkv_multiscales=((),) * 6,
        scaling_factor=0.5,
    )


def _sana_controlnet(fx: Framework) -> Any:
    controlnet = _transformer(fx, "SanaControlNetModel", num_layers=1)
    return _pipeline(
        fx,
        "SanaControlNetPipeline",
        transformer=_transformer(fx),
        controlnet=controlnet,
        vae=_autoencoder(fx),
        scheduler=_flow(fx),
    )


def _controlled(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    made = _sana_arguments(fx, pipeline, request)
    image = fx.normal(request.prompts, 3, made["height"], made["width"], seed=3)
    return {**made, "control_image": image}


def _sprint(class_name: str) -> Any:
    def build(fx: Framework) -> Any:
        return _pipeline(
            fx,
            class_name,
            transformer=_transformer(fx, guidance_embeds=True),
            vae=_autoencoder(fx),
            scheduler=fx.scheduler("SCMScheduler"),
        )

    return build


def _sprint_arguments(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    made = _sana_arguments(fx, pipeline, request)
    made = {name: value for name, value in made.items() if not name.startswith("negative")}
    return {**made, "intermediate_timesteps": None}


def _sprint_image(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    made = _sprint_arguments(fx, pipeline, request)
    image = fx.uniform(request.prompts, 3, made["height"], made["width"], seed=3)
    return {**made, "image": image}


# Video: autoencoders shrink frames by 8, and turn 5 of them into 2.


def _video_transformer(fx: Framework, channels: int) -> Any:
    return _transformer(
        fx,
        "SanaVideoTransformer3DModel",
        attention_head_dim=12,
        cross_attention_head_dim=12,
        cross_attention_dim=24,
        num_layers=1,
        in_channels=channels,
        out_channels=channels,
        patch_size=(1, 2, 2),
    )


def _video(fx: Framework) -> Any:
    transformer = _video_transformer(fx, 4)
    return _pipeline(fx, "SanaVideoPipeline", transformer=transformer, scheduler=_flow(fx))


def _image_to_video(fx: Framework) -> Any:
    vae = fx.model(
        "AutoencoderKLWan",
        base_dim=3,
        z_dim=16,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
    )
    return _pipeline(
        fx,
        "SanaImageToVideoPipeline",
        transformer=_video_transformer(fx, 16),
        scheduler=_flow(fx),
        vae=vae,
    )


def _video_arguments(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {
        **_common(fx, request),
        "num_videos_per_prompt": request.images,
        "height": 32,
        "width": 32,
        "frames": 5,
    }


def _image_to_video_arguments(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    # One picture, whatever the number of prompts.
    image = fx.uniform(1, 3, 32, 32, seed=3)
    return {**_video_arguments(fx, pipeline, request), "image": image}


# SANA-WM: without an autoencoder, frames are shrunk by 32, and 9 of them are 2.


def _world(fx: Framework) -> Any:
    transformer = fx.model(
        "SanaWMTransformer3DModel",
        in_channels=4,
        num_layers=2,
        hidden_size=48,
        num_attention_heads=2,
        linear_head_dim=24,
        softmax_every_n=2,
        chunk_plucker_post_attn_blocks=2,
        caption_channels=CAPTION,
    )
    pipeline = _pipeline(fx, "SanaWMPipeline", transformer=transformer, scheduler=_flow(fx))
    pipeline._encode_first_frame = lambda *_: fx.normal(1, 4, 1, 2, 2, seed=3)
    return pipeline


def _world_arguments(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    poses = np.tile(np.eye(4), (9, 1, 1))
    poses[:, 2, 3] = np.linspace(0, 1, 9)
    picture = np.random.default_rng(4).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    return {
        "image": Image.fromarray(picture),
        "prompt": "",
        "c2w": poses,
        "intrinsics": [64.0, 64.0, 32.0, 32.0],
        "height": 64,
        "width": 64,
        "num_frames": 9,
        "prompt_embeds": fx.normal(1, 1, TOKENS, CAPTION),
        "negative_prompt_embeds": fx.normal(1, 1, TOKENS, CAPTION, seed=2),
        **_masks(fx, 1),
        "num_inference_steps": request.steps,
        "guidance_scale": 5.0 if request.guided else 1.0,
        "generator": fx.generator(),
        "output_type": "latent",
    }


_ONE_ROW = "its latents are always of one row: a call makes one video"

ENTRIES = [
    Entry("SanaPipeline", _sana, _sana_arguments),
    Entry("SanaControlNetPipeline", _sana_controlnet, _controlled),
    Entry("SanaSprintPipeline", _sprint("SanaSprintPipeline"), _sprint_arguments),
    Entry("SanaSprintImg2ImgPipeline", _sprint("SanaSprintImg2ImgPipeline"), _sprint_image),
    Entry("SanaVideoPipeline", _video, _video_arguments, frameworks=("torch",)),
    Entry(
        "SanaImageToVideoPipeline",
        _image_to_video,
        _image_to_video_arguments,
        {"two images per prompt": "its mask of frames has a row for each prompt, not each video"},
        frameworks=("torch",),
    ),
    Entry(
        "SanaWMPipeline",
        _world,
        _world_arguments,
        {"two prompts": _ONE_ROW, "two images per prompt": _ONE_ROW},
        frameworks=("torch",),
    ),
]
