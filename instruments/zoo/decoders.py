"""Decoders for the tiny pipelines that do without one, as the cut of guidance needs none.

They are added after the pipeline was built, so that it keeps the scales that it took from having
none, and its requests their sizes. Each is a tiny one of the class that the pipeline's checkpoints
have, or of another that the pipeline's end uses alike.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zoo.families import cogvideo, cosmos, flux, hunyuan_video, kandinsky5, ltx, qwen, sana, wan
from zoo.framework import Framework

#: Pipelines that hand out their latents, which nothing decodes, and why.
RETURNED = {
    "EasyAnimateControlPipeline": "its end calls decode_latents, which it does not have",
    "PRXPixelPipeline": "its latents are the picture",
    "StableCascadePriorPipeline": "its latents are the next pipeline's condition",
    "WuerstchenPriorPipeline": "its latents are the next pipeline's condition",
}
CHANNELS = 4


def add_decoder(class_name: str, fx: Framework, pipeline: Any) -> None:
    """Give the pipeline a decoder if it has none and its class is in the table."""
    name = "vqgan" if hasattr(pipeline, "vqgan") else "vae"
    make = DECODERS.get(class_name)
    if make is not None and getattr(pipeline, name, None) is None:
        pipeline.register_modules(**{name: make(fx)})
    if class_name == "PRXPipeline" and pipeline.image_processor is None:
        processors = fx.named("PixArtImageProcessor", "image_processor")
        pipeline.image_processor = processors(vae_scale_factor=8)


def _kl(fx: Framework) -> Any:
    return flux._vae(fx, shift_factor=0.1)


def _flux2(fx: Framework) -> Any:
    made = flux._vae(fx, "AutoencoderKLFlux2")
    # The statistics of a new batch norm would change nothing.
    count = 4 * CHANNELS
    spread = fx.tensor(fx.backend.ops.to_numpy(fx.uniform(count, seed=2)) + 0.5)
    for names, value in (
        (("running_mean", "moving_mean"), fx.normal(count, seed=2)),
        (("running_var", "moving_variance"), spread),
    ):
        fx.copy_into(next(getattr(made.bn, n) for n in names if hasattr(made.bn, n)), value)
    return made


def _paella(fx: Framework) -> Any:
    places = ("pipelines.deprecated.wuerstchen", "pipelines.wuerstchen")
    kind = fx.named("PaellaVQModel", *(f"{place}.modeling_paella_vq_model" for place in places))
    return fx.fill(kind(bottleneck_blocks=1, embed_dim=8, num_vq_embeddings=16))


def _hunyuan_image(fx: Framework) -> Any:
    return fx.model(
        "AutoencoderKLHunyuanImage",
        in_channels=3,
        out_channels=3,
        latent_channels=CHANNELS,
        block_out_channels=(32, 32),
        layers_per_block=1,
        spatial_compression_ratio=2,
        sample_size=16,
        scaling_factor=0.75,
    )


def _hunyuan_refiner(fx: Framework) -> Any:
    return fx.model(
        "AutoencoderKLHunyuanImageRefiner",
        latent_channels=CHANNELS // 2,  # half of those that the loop has
        block_out_channels=(8, 8),
        layers_per_block=1,
        spatial_compression_ratio=2,
        temporal_compression_ratio=1,
    )


def _mochi(fx: Framework) -> Any:
    return fx.model(
        "AutoencoderKLMochi",
        encoder_block_out_channels=(32,) * 4,
        decoder_block_out_channels=(32,) * 4,
        latent_channels=CHANNELS,
        layers_per_block=(1,) * 5,
        latents_mean=None,  # the loop's end has them 12 channels
        latents_std=None,
        scaling_factor=0.7,
    )


def _qwen21(fx: Framework) -> Any:
    return fx.model(
        "AutoencoderKLQwenImage21",
        base_dim=4,
        decoder_base_dim=4,
        z_dim=CHANNELS,
        dim_mult=[1, 1],
        num_res_blocks=1,
        temperal_downsample=[False],
        latents_mean=[0.1] * CHANNELS,
        latents_std=[0.9] * CHANNELS,
        scale_factor_temporal=1,
        scale_factor_spatial=2,
    )


DECODERS: dict[str, Callable[[Framework], Any]] = {
    "AllegroPipeline": cogvideo._video_vae,  # its own decodes no picture this small
    "AnyFlowFARPipeline": wan.vae,
    "AnyFlowPipeline": wan.vae,
    "AuraFlowPipeline": _kl,
    "BriaFibo2Pipeline": _flux2,
    "BriaFiboEditPipeline": wan.vae,
    "BriaFiboPipeline": wan.vae,
    "CogVideoXPipeline": cogvideo._video_vae,
    "CogVideoXVideoToVideoPipeline": cogvideo._video_vae,
    "CogView3PlusPipeline": _kl,
    "CogView4Pipeline": _kl,
    "Cosmos2TextToImagePipeline": wan.vae,
    "CosmosTextToWorldPipeline": cosmos._vae,
    "ErnieImagePipeline": _flux2,
    "HiDreamImagePipeline": _kl,
    "HunyuanImagePipeline": _hunyuan_image,
    "HunyuanImageRefinerPipeline": _hunyuan_refiner,
    "HunyuanVideoPipeline": hunyuan_video._vae,
    "Ideogram4Pipeline": _flux2,
    "JoyImageEditPipeline": wan.vae,
    "Kandinsky5T2IPipeline": kandinsky5._picture_vae,
    "Krea2Pipeline": qwen._vae,
    "LTXPipeline": ltx.video_vae,
    "Lumina2Pipeline": _kl,
    "LuminaPipeline": _kl,
    "MochiPipeline": _mochi,
    "OvisImagePipeline": _kl,
    "PRXPipeline": _kl,
    "QwenImage21Pipeline": _qwen21,
    "QwenImageEditInpaintPipeline": qwen._vae,
    "QwenImageEditPipeline": qwen._vae,
    "QwenImageEditPlusPipeline": qwen._vae,
    "SanaPAGPipeline": sana._autoencoder,
    "SanaPipeline": sana._autoencoder,
    "SanaVideoPipeline": wan.vae,
    "SanaWMPipeline": ltx.video2_vae,
    "StableCascadeDecoderPipeline": _paella,
    "WanPipeline": wan.vae,
    "WuerstchenDecoderPipeline": _paella,
}
