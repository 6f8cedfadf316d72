"""Deprecated variations on Stable Diffusion, whose loops call no callback."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from zoo.entry import Entry, Request
from zoo.families.diffusion_transformers import small_vae
from zoo.framework import Framework
from zoo.words import TEXT, TOKENS, Encoder, Part, Tokenizer

PIXELS = 64
CELLS = 8
WORDS = ["a picture of a cat"]
TORCH = ("torch",)


def _unet(fx: Framework, channels: int = 4, **more: Any) -> Any:
    return fx.model(
        "UNet2DConditionModel",
        sample_size=CELLS,
        in_channels=channels,
        out_channels=4,
        block_out_channels=(8, 8),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=TEXT,
        attention_head_dim=2,
        norm_num_groups=4,
        **more,
    )


def _scheduler(fx: Framework, **more: Any) -> Any:
    # Little noise, so that the last steps, which a cut changes, weigh as much as the first.
    return fx.scheduler("DDIMScheduler", steps_offset=1, beta_end=0.004, clip_sample=False, **more)


def _pipeline(fx: Framework, name: str, channels: int = 4, **parts: Any) -> Any:
    made = {"vae": small_vae(fx, 4), "unet": _unet(fx, channels), "scheduler": _scheduler(fx)}
    none = dict.fromkeys(("safety_checker", "feature_extractor"))
    return fx.pipeline(name, **{**made, **none, **parts}, requires_safety_checker=False)


def _common(fx: Framework, request: Request) -> dict[str, Any]:
    return {
        "num_images_per_prompt": request.images,
        "num_inference_steps": request.steps,
        "guidance_scale": 9.0 if request.guided else 1.0,
        "generator": fx.generator(),
        "output_type": "latent",
    }


# Of embeddings


def _embedded_by(name: str, fx: Framework) -> Any:
    return _pipeline(fx, name, **dict.fromkeys(("text_encoder", "tokenizer")))


def _embedded(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {
        # Large, so that weights this small let guidance show.
        "prompt_embeds": 20 * fx.normal(request.prompts, TOKENS, TEXT),
        "negative_prompt_embeds": 20 * fx.normal(request.prompts, TOKENS, TEXT, seed=2),
        **_common(fx, request),
    }


# Of words


def _worded_by(name: str, fx: Framework) -> Any:
    return _pipeline(fx, name, tokenizer=Tokenizer(fx), text_encoder=Encoder(fx))


def _semantic(
    edits: dict[str, Any], fx: Framework, pipeline: Any, request: Request
) -> dict[str, Any]:
    return {"prompt": WORDS * request.prompts, **_common(fx, request), **edits}


def _safe(fx: Framework) -> Any:
    pipeline = _worded_by("StableDiffusionPipelineSafe", fx)
    encoder = pipeline.text_encoder

    def encode(prompt: list[str], *others: Any) -> Any:
        # Left out of the arguments, if the port calls without a device, is the first of these.
        images, guided, _, safely = others[-4:]
        parts = [[""] * len(prompt)] if guided else []
        parts += [prompt, ["something else"] * len(prompt)] if safely else [prompt]
        ids = np.repeat([[len(text)] * TOKENS for part in parts for text in part], images, axis=0)
        return encoder(ids)[0]

    pipeline._encode_prompt = encode
    return pipeline


def _spoken(safety: float, fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    made = {"prompt": WORDS * request.prompts, **_common(fx, request)}
    return {**made, "sld_guidance_scale": safety, "sld_warmup_steps": 2, "output_type": "np"}


# From a picture


def _example(fx: Framework) -> Any:
    pipeline = _pipeline(fx, "PaintByExamplePipeline", 9, image_encoder=None)

    def encode(image: Any, *device_and_more: Any) -> Any:
        images, guided = device_and_more[-2:]
        pictures = 20 * np.random.default_rng(1).normal(size=(len(image), 1, TEXT))
        embeds = np.repeat(pictures, images, axis=0)
        return fx.tensor(np.concatenate([-embeds, embeds]) if guided else embeds)

    pipeline._encode_image = encode
    return pipeline


def _painted(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    rows = request.prompts
    return {
        **_common(fx, request),
        "example_image": fx.uniform(rows, 3, PIXELS, PIXELS, seed=5),
        "image": fx.uniform(rows, 3, PIXELS, PIXELS, seed=6) * 2 - 1,
        "mask_image": fx.zeros_and_box(rows, 1, PIXELS, PIXELS),
    }


def _cycle(fx: Framework) -> Any:
    pipeline = _worded_by("CycleDiffusionPipeline", fx)
    # Its loop divides by the deviation of a step's noise, of which the last step is to have some.
    pipeline.scheduler = _scheduler(fx, set_alpha_to_one=False)
    encoder = pipeline.text_encoder

    def encode(prompt: Any, device: Any, images: int, guided: bool, *_: Any, **more: Any) -> Any:
        words, empty = ([[len(text)] * TOKENS] * images for text in (prompt, ""))
        found = more.get("prompt_embeds")
        found = encoder(np.array(words))[0] if found is None else found
        return found, encoder(np.array(empty))[0] if guided else None

    pipeline.encode_prompt = encode
    return pipeline


def _cycled(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {
        **_common(fx, request),
        "prompt": WORDS[0],
        "source_prompt": "another picture",
        "image": fx.uniform(request.prompts, 3, PIXELS, PIXELS, seed=5),
        # Of eight steps, the last four are run.
        "strength": 0.5,
        "num_inference_steps": 2 * request.steps,
    }


class _Subjects:
    """Stand for an image processor: hands pictures through."""

    def __init__(self, fx: Framework) -> None:
        self._to_host = fx.backend.ops.to_numpy

    def preprocess(self, image: Any, return_tensors: str, **_: Any) -> dict[str, Any]:
        return {"pixel_values": self._to_host(image) if return_tensors == "np" else image}

    def postprocess(self, image: Any, output_type: str = "pt") -> Any:
        return image


class _Context(Encoder):
    text_model = Part(config=Part(max_position_embeddings=TOKENS))

    def __call__(self, input_ids: Any, **_: Any) -> Any:
        return super().__call__(input_ids)


def _subject(fx: Framework) -> Any:
    pipeline = fx.pipeline(
        "BlipDiffusionPipeline",
        tokenizer=Tokenizer(fx),
        text_encoder=_Context(fx),
        vae=small_vae(fx, 4),
        unet=_unet(fx),
        scheduler=fx.scheduler("PNDMScheduler", skip_prk_steps=True, beta_end=0.004),
        qformer=None,
        image_processor=_Subjects(fx),
    )
    pipeline.get_query_embeddings = lambda *_: None
    pipeline.encode_prompt = lambda query, prompt, *_: 20 * fx.normal(len(prompt), TOKENS, TEXT)
    return pipeline


def _with_subject(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    made = _common(fx, request)
    del made["num_images_per_prompt"]
    return {
        **made,
        "prompt": WORDS * request.prompts,
        "reference_image": fx.uniform(request.prompts, 3, PIXELS, PIXELS, seed=5),
        "source_subject_category": ["a thing"] * request.prompts,
        "target_subject_category": ["a thing"] * request.prompts,
        # Its latents are as wide as the picture is, halved at each block of the model but one.
        "height": 2 * CELLS,
        "width": 2 * CELLS,
        "output_type": "np",
    }


_SAG, _SAFE = "StableDiffusionSAGPipeline", "StableDiffusionPipelineSafe"
_SEMANTIC = "SemanticStableDiffusionPipeline"
_EDITS = {"editing_prompt": ["a dog", "a bird, too"], "edit_warmup_steps": 2}

ENTRIES = [
    Entry(
        "StableDiffusionModelEditingPipeline",
        partial(_embedded_by, "StableDiffusionModelEditingPipeline"),
        _embedded,
        frameworks=TORCH,
    ),
    Entry(_SAG, partial(_embedded_by, _SAG), _embedded),
    Entry(_SEMANTIC, partial(_worded_by, _SEMANTIC), partial(_semantic, {})),
    Entry(
        _SEMANTIC,
        partial(_worded_by, _SEMANTIC),
        partial(_semantic, _EDITS),
        variant="edits",
    ),
    Entry(_SAFE, _safe, partial(_spoken, 1000.0)),
    Entry(_SAFE, _safe, partial(_spoken, 0.0), variant="without safety guidance"),
    Entry("PaintByExamplePipeline", _example, _painted),
    Entry(
        "CycleDiffusionPipeline",
        _cycle,
        _cycled,
        impossible=dict.fromkeys(
            ("two prompts", "two images per prompt"), "its loop takes one row of latents apart"
        ),
        frameworks=TORCH,
    ),
    Entry(
        "BlipDiffusionPipeline",
        _subject,
        _with_subject,
        impossible={"two images per prompt": "the call has no number of pictures per prompt"},
    ),
]
