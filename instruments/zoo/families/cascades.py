"""Pipelines in stages, a prior and a decoder: Kandinsky 2.2 and 3, Wuerstchen, Stable Cascade."""

from __future__ import annotations

import importlib
from types import SimpleNamespace
from typing import Any

import numpy as np

from zoo.entry import Entry, Request
from zoo.framework import Framework

PIXELS = 16
#: Width of embeddings of pictures and of tokens.
WIDTH = 8
TOKENS = 4
#: So that the last steps, which are those that a cut changes, weigh as much as the first.
_LITTLE_NOISE: dict[str, Any] = {"beta_end": 0.004, "clip_sample": False}


class _Tokenizer:
    """Every text is TOKENS letters long."""

    model_max_length = TOKENS

    def __init__(self, fx: Framework) -> None:
        self._fx = fx

    def __call__(self, texts: Any, return_tensors: str = "np", **_: Any) -> Any:
        rows = [texts] if isinstance(texts, str) else texts
        ids = np.array([[ord(letter) % 16 for letter in f"{text:-<4}"[:TOKENS]] for text in rows])
        mask = np.ones_like(ids)
        if return_tensors == "pt":
            return SimpleNamespace(
                input_ids=self._fx.tensor(ids, "int64"),
                attention_mask=self._fx.tensor(mask, "int64"),
            )
        return SimpleNamespace(input_ids=ids, attention_mask=mask)


def _text_encoder(fx: Framework, class_name: str = "CLIPTextModel") -> Any:
    from transformers import CLIPTextConfig

    return fx.text_model(
        class_name,
        CLIPTextConfig(
            hidden_size=WIDTH,
            intermediate_size=WIDTH,
            projection_dim=WIDTH,
            num_attention_heads=2,
            num_hidden_layers=1,
            vocab_size=16,
            max_position_embeddings=TOKENS,
            bos_token_id=0,
            eos_token_id=2,
            pad_token_id=1,
        ),
    )


def _masks_fit(fx: Framework, model: Any) -> Any:
    """Return ``model``; in the port, with the attention that takes masks without an accelerator
    too."""
    if fx.name == "mindspore":
        from mindone.diffusers.models.attention_processor import AttnProcessor

        model.set_attn_processor(AttnProcessor())
    return model


def _movq(fx: Framework) -> Any:
    return fx.model(
        "VQModel",
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        num_vq_embeddings=8,
        vq_embed_dim=4,
        norm_num_groups=4,
        sample_size=PIXELS,
    )


def _common(request: Request) -> dict[str, Any]:
    return {
        "num_images_per_prompt": request.images,
        "num_inference_steps": request.steps,
        "guidance_scale": 5.0 if request.guided else 1.0,
        "output_type": "latent",
    }


# Kandinsky 2.2


def _kandinsky22(class_name: str, channels: int = 4, learned: bool = False) -> Any:
    def build(fx: Framework) -> Any:
        scheduler = (
            fx.scheduler("DDPMScheduler", variance_type="learned_range", **_LITTLE_NOISE)
            if learned
            else fx.scheduler("DDIMScheduler", steps_offset=1, **_LITTLE_NOISE)
        )
        unet = fx.model(
            "UNet2DConditionModel",
            in_channels=channels,
            out_channels=8,
            sample_size=PIXELS // 2,
            # One level: the pooling between levels is not on every backend.
            block_out_channels=(8,),
            layers_per_block=1,
            down_block_types=("SimpleCrossAttnDownBlock2D",),
            mid_block_type="UNetMidBlock2DSimpleCrossAttn",
            up_block_types=("SimpleCrossAttnUpBlock2D",),
            resnet_time_scale_shift="scale_shift",
            encoder_hid_dim_type="image_proj",
            encoder_hid_dim=WIDTH,
            addition_embed_type="image",
            cross_attention_dim=WIDTH,
            attention_head_dim=4,
            norm_num_groups=4,
        )
        return fx.pipeline(class_name, unet=unet, scheduler=scheduler, movq=_movq(fx))

    return build


def _embedded(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    embeds = np.random.default_rng(1).normal(size=(request.prompts, WIDTH))
    images = request.images
    if not request.guided:
        # Without guidance, the pipeline does not repeat them for several pictures.
        embeds, images = np.repeat(embeds, images, axis=0), 1
    return {
        **_common(request),
        "num_images_per_prompt": images,
        "image_embeds": fx.tensor(embeds),
        "negative_image_embeds": fx.normal(request.prompts, WIDTH, seed=2),
        "height": PIXELS,
        "width": PIXELS,
        "generator": fx.generator(),
    }


def _pictures(fx: Framework, request: Request) -> Any:
    pictures = np.random.default_rng(3).uniform(size=(request.prompts, 3, PIXELS, PIXELS))
    return fx.tensor(pictures if request.guided else np.repeat(pictures, request.images, axis=0))


def _embedded_image(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    image = _pictures(fx, request)
    # Of eight steps, the last four are run.
    more = {"image": image, "strength": 0.5, "num_inference_steps": 2 * request.steps}
    return {**_embedded(fx, pipeline, request), **more}


def _embedded_inpaint(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    image = _pictures(fx, request)
    mask = fx.zeros_and_box(image.shape[0], 1, PIXELS, PIXELS)
    return {**_embedded(fx, pipeline, request), "image": image, "mask_image": mask}


def _kandinsky22_prior(fx: Framework) -> Any:
    prior = fx.model(
        "PriorTransformer",
        num_attention_heads=2,
        attention_head_dim=4,
        num_layers=1,
        embedding_dim=WIDTH,
        num_embeddings=TOKENS,
        additional_embeddings=4,
    )
    pipeline = fx.pipeline(
        "KandinskyV22PriorPipeline",
        prior=_masks_fit(fx, prior),
        image_encoder=None,
        image_processor=None,
        text_encoder=None,
        tokenizer=None,
        scheduler=fx.scheduler(
            "UnCLIPScheduler",
            variance_type="fixed_small_log",
            prediction_type="sample",
            clip_sample_range=10.0,
        ),
    )

    def encode(prompt: list[str], *others: Any) -> Any:
        # What is left out of the arguments, if the port calls without a device, is at its front.
        images, guided = others[-3], others[-2]
        rows = len(prompt) * images * (2 if guided else 1)
        # Conditional rows are the last ones, the same with and without guidance.
        end = len(prompt) * images * 2
        pooled = np.random.default_rng(1).normal(size=(end, WIDTH))[end - rows :]
        hidden = np.random.default_rng(2).normal(size=(end, TOKENS, WIDTH))[end - rows :]
        mask = np.arange(end)[:, None] % 2 + np.arange(TOKENS) < TOKENS
        return fx.tensor(pooled), fx.tensor(hidden), fx.tensor(mask[end - rows :], "bool")

    pipeline._encode_prompt = encode
    pipeline.get_zero_embed = lambda rows, *_, **__: fx.tensor(np.zeros((rows, WIDTH)))
    return pipeline


def _prompted(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    prompts = ["abcd"] * request.prompts
    more = {"prompt": prompts, "generator": fx.generator(), "output_type": "np"}
    return {**_common(request), **more}


def _prompted_twice(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    made = _prompted(fx, pipeline, request)
    return {**made, "negative_prompt": ["efgh"] * request.prompts}


# Kandinsky 3


def _kandinsky3(class_name: str) -> Any:
    def build(fx: Framework) -> Any:
        unet = fx.model(
            "Kandinsky3UNet",
            in_channels=4,
            time_embedding_dim=4,
            groups=2,
            attention_head_dim=4,
            layers_per_block=2,
            block_out_channels=(8, 16),
            cross_attention_dim=4,
            encoder_hid_dim=WIDTH,
        )
        return fx.pipeline(
            class_name,
            unet=_masks_fit(fx, unet),
            movq=_movq(fx),
            scheduler=fx.scheduler("DDIMScheduler", steps_offset=1, **_LITTLE_NOISE),
            text_encoder=_text_encoder(fx),  # only its dtype is asked for
            tokenizer=None,
        )

    return build


def _masked(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    rows = request.prompts
    mask = np.ones((rows, TOKENS))
    mask[:, -1] = 0
    return {
        **_common(request),
        "prompt_embeds": fx.normal(rows, TOKENS, WIDTH),
        "negative_prompt_embeds": fx.normal(rows, TOKENS, WIDTH, seed=2),
        "attention_mask": fx.tensor(mask),
        "negative_attention_mask": fx.tensor(np.ones((rows, TOKENS))),
        "generator": fx.generator(),
    }


def _masked_text(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    # An eighth of it is the size of the latents, whatever the autoencoder.
    return {**_masked(fx, pipeline, request), "height": 64, "width": 64}


def _masked_image(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    image = fx.uniform(request.prompts, 3, PIXELS, PIXELS, seed=3)
    more = {"image": image, "strength": 0.5, "num_inference_steps": 2 * request.steps}
    return {**_masked(fx, pipeline, request), **more}


# Wuerstchen


def _wuerstchen_model(fx: Framework, class_name: str, **config: Any) -> Any:
    """Return a model that only the pipelines' own package has."""
    package = "deprecated.wuerstchen" if fx.name == "torch" else "wuerstchen"
    module = importlib.import_module(f"{fx.library.__name__}.pipelines.{package}")
    return fx.fill(getattr(module, class_name)(**config))


def _wuerstchen_prior(fx: Framework) -> Any:
    prior = _wuerstchen_model(
        fx, "WuerstchenPrior", c_in=4, c=8, c_cond=WIDTH, c_r=4, depth=1, nhead=2, dropout=0.0
    )
    return fx.pipeline(
        "WuerstchenPriorPipeline",
        prior=prior,
        scheduler=fx.scheduler("DDPMWuerstchenScheduler"),
        text_encoder=_text_encoder(fx),
        tokenizer=_Tokenizer(fx),
        resolution_multiple=8.0,
    )


def _wuerstchen_decoder(fx: Framework) -> Any:
    decoder = _wuerstchen_model(
        fx,
        "WuerstchenDiffNeXt",
        c_cond=8,
        c_r=4,
        c_hidden=[8, 8],
        nhead=[-1, 2],
        blocks=[1, 1],
        level_config=["CT", "CTA"],
        inject_effnet=[False, True],
        effnet_embd=4,
        clip_embd=WIDTH,
        dropout=0.0,
    )
    return fx.pipeline(
        "WuerstchenDecoderPipeline",
        decoder=decoder,
        scheduler=fx.scheduler("DDPMWuerstchenScheduler"),
        text_encoder=_text_encoder(fx),
        tokenizer=_Tokenizer(fx),
        vqgan=None,
        latent_dim_scale=4.0,
    )


def _texts(fx: Framework, request: Request) -> dict[str, Any]:
    """Return the embeddings of prompts; those of negative ones would be used even without
    guidance."""
    made = {"prompt_embeds": fx.normal(request.prompts, TOKENS, WIDTH)}
    if request.guided:
        made["negative_prompt_embeds"] = fx.normal(request.prompts, TOKENS, WIDTH, seed=2)
    return made


def _prior_arguments(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {
        **_common(request),
        **_texts(fx, request),
        # Large, so that weights this small let guidance show.
        "guidance_scale": 500.0 if request.guided else 1.0,
        "height": 32,
        "width": 32,
        "generator": fx.generator(),
        "output_type": "np",
    }


def _wuerstchen_decoder_arguments(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {
        **_common(request),
        # The prior makes several pictures of a prompt; this stage goes on with each.
        "image_embeddings": fx.normal(request.rows, 4, 2, 2),
        "num_images_per_prompt": 1,
        "prompt": [f"abc{i}" for i in range(request.prompts)],
        "negative_prompt": [f"bcd{i}" for i in range(request.prompts)],
        "generator": fx.generator(),
    }


# Stable Cascade

_BLOCKS = (
    ("SDCascadeResBlock", "SDCascadeTimestepBlock"),
    ("SDCascadeResBlock", "SDCascadeTimestepBlock", "SDCascadeAttnBlock"),
)


def _cascade_unet(fx: Framework, **more: Any) -> Any:
    return fx.model(
        "StableCascadeUNet",
        in_channels=4,
        out_channels=4,
        timestep_ratio_embedding_dim=4,
        conditioning_dim=8,
        block_out_channels=(8, 8),
        num_attention_heads=(-1, 2),
        down_num_layers_per_block=(1, 1),
        up_num_layers_per_block=(1, 1),
        block_types_per_layer=_BLOCKS,
        clip_text_pooled_in_channels=WIDTH,
        clip_seq=TOKENS,
        dropout=(0.0, 0.0),
        **more,
    )


def _cascade_prior(fx: Framework) -> Any:
    return fx.pipeline(
        "StableCascadePriorPipeline",
        prior=_cascade_unet(
            fx, clip_text_in_channels=WIDTH, clip_image_in_channels=WIDTH, switch_level=(False,)
        ),
        scheduler=fx.scheduler("DDPMWuerstchenScheduler"),
        text_encoder=_text_encoder(fx, "CLIPTextModelWithProjection"),
        tokenizer=_Tokenizer(fx),
        resolution_multiple=8.0,
    )


def _cascade_decoder(fx: Framework) -> Any:
    return fx.pipeline(
        "StableCascadeDecoderPipeline",
        decoder=_cascade_unet(fx, effnet_in_channels=4, pixel_mapper_in_channels=3, patch_size=2),
        scheduler=fx.scheduler("DDPMWuerstchenScheduler"),
        text_encoder=_text_encoder(fx, "CLIPTextModelWithProjection"),
        tokenizer=_Tokenizer(fx),
        vqgan=None,
        latent_dim_scale=4.0,
    )


def _pooled(fx: Framework, request: Request, rows: int) -> dict[str, Any]:
    made = {"prompt_embeds_pooled": fx.normal(rows, 1, WIDTH, seed=5)}
    if request.guided:
        made["negative_prompt_embeds_pooled"] = fx.normal(rows, 1, WIDTH, seed=6)
    return made


def _cascade_prior_arguments(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    pooled = _pooled(fx, request, request.prompts)
    return {**_prior_arguments(fx, pipeline, request), **pooled}


def _cascade_pictured(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    made = _cascade_prior_arguments(fx, pipeline, request)
    return {**made, "image_embeds": fx.normal(1, 1, WIDTH, seed=7)}


def _cascade_decoder_arguments(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {
        **_common(request),
        **_texts(fx, request),
        # The pipeline does not repeat embeddings that it is given.
        **_pooled(fx, request, request.rows),
        "image_embeddings": fx.normal(request.rows, 4, 2, 2),
        "num_images_per_prompt": 1,
        "generator": fx.generator(),
    }


_IMAGE = "KandinskyV22Img2ImgPipeline"
_INPAINT = "KandinskyV22InpaintPipeline"

ENTRIES = [
    Entry("KandinskyV22Pipeline", _kandinsky22("KandinskyV22Pipeline"), _embedded),
    Entry(
        "KandinskyV22Pipeline",
        _kandinsky22("KandinskyV22Pipeline", learned=True),
        _embedded,
        variant="learned variance",
    ),
    Entry(_IMAGE, _kandinsky22(_IMAGE), _embedded_image),
    Entry(_INPAINT, _kandinsky22(_INPAINT, channels=9), _embedded_inpaint),
    Entry("KandinskyV22PriorPipeline", _kandinsky22_prior, _prompted),
    Entry(
        "KandinskyV22PriorPipeline",
        _kandinsky22_prior,
        _prompted_twice,
        variant="negative prompt",
    ),
    Entry("Kandinsky3Pipeline", _kandinsky3("Kandinsky3Pipeline"), _masked_text),
    Entry("Kandinsky3Img2ImgPipeline", _kandinsky3("Kandinsky3Img2ImgPipeline"), _masked_image),
    Entry("WuerstchenPriorPipeline", _wuerstchen_prior, _prior_arguments),
    Entry(
        "WuerstchenDecoderPipeline",
        _wuerstchen_decoder,
        _wuerstchen_decoder_arguments,
        {"two prompts": "it repeats each prompt for every picture of the prior: one prompt fits"},
    ),
    Entry("StableCascadePriorPipeline", _cascade_prior, _cascade_prior_arguments),
    Entry(
        "StableCascadePriorPipeline",
        _cascade_prior,
        _cascade_pictured,
        variant="image embeddings",
    ),
    Entry("StableCascadeDecoderPipeline", _cascade_decoder, _cascade_decoder_arguments),
]
