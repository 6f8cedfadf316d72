"""Cosmos: worlds from texts, pictures and videos, two calls of the transformer a step."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any

from zoo.entry import Entry, Request
from zoo.families.wan import CHANNELS, NEGATIVE, PROMPTS, encoder, picture, unipc, vae, video
from zoo.framework import Framework

PIXELS = 32
TEXT = 8


class Approving:
    """A safety checker that finds nothing wrong."""

    def to(self, *_: Any, **__: Any) -> Approving:
        return self

    def check_text_safety(self, _: str) -> bool:
        return True

    def check_video_safety(self, frames: Any) -> Any:
        return frames


class Encoder:
    """The encoder is as much of a text encoder as a pipeline asks for whose texts are encoded
    elsewhere."""

    def __init__(self, fx: Framework) -> None:
        self.dtype = fx.normal(1).dtype


def _transformer(fx: Framework, **more: Any) -> Any:
    config = {
        "in_channels": CHANNELS,
        "out_channels": CHANNELS,
        "num_attention_heads": 2,
        "attention_head_dim": 12,
        "num_layers": 2,
        "mlp_ratio": 1.0,
        "text_embed_dim": TEXT,
        "adaln_lora_dim": 4,
        "max_size": (8, 8, 8),
        "extra_pos_embed_type": None,
        # Another library is needed to resize that mask, which is all zeros here.
        "concat_padding_mask": False,
    }
    return fx.model("CosmosTransformer3DModel", **{**config, **more})


def _edm(fx: Framework) -> Any:
    return fx.scheduler(
        "EDMEulerScheduler",
        sigma_min=0.002,
        sigma_max=80.0,
        sigma_data=0.5,
        sigma_schedule="karras",
        final_sigmas_type="sigma_min",
    )


def _vae(fx: Framework) -> Any:
    return fx.model(
        "AutoencoderKLCosmos",
        patch_type="rearrange",
        patch_size=8,
        latent_channels=CHANNELS,
        encoder_block_out_channels=(8, 8, 8, 8),
        decode_block_out_channels=(8, 8, 8, 8),
        attention_resolutions=(8,),
        resolution=PIXELS,
        num_layers=1,
        latents_mean=None,
        latents_std=None,
    )


def _pipeline(fx: Framework, kind: str, scheduler: Callable[[Framework], Any], **parts: Any) -> Any:
    _without_guardrail(fx)
    made = fx.pipeline(
        kind,
        scheduler=scheduler(fx),
        safety_checker=Approving(),
        text_encoder=Encoder(fx),
        tokenizer=None,
        **parts,
    )
    made._get_t5_prompt_embeds = made._get_prompt_embeds = encoder(fx)
    return made


def _without_guardrail(fx: Framework) -> None:
    """The port's own safety checker needs PyTorch, and with it its pipelines, to be imported."""
    if fx.name == "mindspore" and importlib.util.find_spec("torch") is None:
        name = "mindone.diffusers.pipelines.cosmos._cosmos_guardrail"
        module = ModuleType(name)
        module.CosmosSafetyChecker = Approving  # type: ignore[attr-defined]
        sys.modules.setdefault(name, module)


def _common(fx: Framework, request: Request, each: str = "num_videos_per_prompt") -> dict[str, Any]:
    return {
        "prompt": PROMPTS[: request.prompts],
        "negative_prompt": NEGATIVE,
        each: request.images,
        "num_inference_steps": request.steps,
        "guidance_scale": 3.0 if request.guided else 1.0,
        "height": PIXELS,
        "width": PIXELS,
        "generator": fx.generator(),
        "output_type": "latent",
    }


def _text2world(fx: Framework) -> Any:
    return _pipeline(fx, "CosmosTextToWorldPipeline", _edm, transformer=_transformer(fx), vae=None)


def _world(fx: Framework, pipeline: Any, request: Request, frames: int = 9) -> dict[str, Any]:
    return {**_common(fx, request), "num_frames": frames}


def _video2world(fx: Framework) -> Any:
    return _pipeline(fx, "CosmosVideoToWorldPipeline", _edm, transformer=_masked(fx), vae=_vae(fx))


def _masked(fx: Framework, **more: Any) -> Any:
    """Return a transformer with a channel for the mask of the given frames."""
    return _transformer(fx, in_channels=CHANNELS + 1, **more)


def _from_image(
    fx: Framework, pipeline: Any, request: Request, frames: int = 9, **more: Any
) -> dict[str, Any]:
    return {**_world(fx, pipeline, request, frames), "image": picture(PIXELS), **more}


def _text2image2(fx: Framework) -> Any:
    return _pipeline(
        fx, "Cosmos2TextToImagePipeline", _flow2, transformer=_transformer(fx), vae=None
    )


def _flow2(fx: Framework) -> Any:
    return fx.scheduler("FlowMatchEulerDiscreteScheduler", use_karras_sigmas=True)


def _image2(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return _common(fx, request, "num_images_per_prompt")


def _video2world2(fx: Framework) -> Any:
    return _pipeline(
        fx, "Cosmos2VideoToWorldPipeline", _flow2, transformer=_masked(fx), vae=vae(fx)
    )


def _predict25(fx: Framework) -> Any:
    return _pipeline(
        fx, "Cosmos2_5_PredictBasePipeline", unipc, transformer=_masked(fx), vae=vae(fx)
    )


def _from_video(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    given = _world(fx, pipeline, request, 9)
    return {**given, "video": video(5, PIXELS), "num_latent_conditional_frames": 1}


def _transfer25(fx: Framework) -> Any:
    for name in ("controlnets.controlnet_cosmos", "transformers.transformer_cosmos"):
        _give_resize(importlib.import_module(f"diffusers.models.{name}"))
    controlnet = fx.model(
        "CosmosControlNetModel",
        n_controlnet_blocks=2,
        in_channels=CHANNELS + 2,
        latent_channels=CHANNELS + 2,
        model_channels=24,
        num_attention_heads=2,
        attention_head_dim=12,
        mlp_ratio=1.0,
        text_embed_dim=TEXT,
        adaln_lora_dim=4,
        max_size=(8, 8, 8),
    )
    transformer = _masked(fx, controlnet_block_every_n=1, concat_padding_mask=True)
    return _pipeline(
        fx,
        "Cosmos2_5_TransferPipeline",
        unipc,
        transformer=transformer,
        controlnet=controlnet,
        vae=vae(fx),
    )


def _give_resize(module: Any) -> None:
    """Stand in for the optional library that a module takes ``resize`` from, if that is missing."""
    if not hasattr(module, "transforms"):
        interpolate = importlib.import_module("torch.nn.functional").interpolate
        module.transforms = SimpleNamespace(
            functional=SimpleNamespace(
                resize=lambda image, size, interpolation: interpolate(image, size=size)
            ),
            InterpolationMode=SimpleNamespace(NEAREST="nearest"),
        )


def _controlled(fx: Framework, pipeline: Any, request: Request, frames: int = 5) -> dict[str, Any]:
    return {
        **_common(fx, request),
        "controls": video(frames, PIXELS, seed=3),
        "num_frames": frames,
        "num_frames_per_chunk": 5,
    }


class Words:
    """``Words`` is as much of a tokenizer as the pipeline asks for when it is made."""

    eos_token_id = 1

    def convert_tokens_to_ids(self, _: str) -> int:
        return 2


def _omni(fx: Framework) -> Any:
    transformer = fx.model(
        "Cosmos3OmniTransformer",
        head_dim=12,
        hidden_size=24,
        intermediate_size=16,
        latent_channel=CHANNELS,
        num_attention_heads=2,
        num_hidden_layers=1,
        num_key_value_heads=1,
        patch_latent_dim=4 * CHANNELS,
        vocab_size=32,
        rope_axes_dim=(2, 2, 2),
    )
    made = fx.pipeline(
        "Cosmos3OmniPipeline",
        transformer=transformer,
        text_tokenizer=Words(),
        vae=vae(fx),
        scheduler=unipc(fx),
        enable_safety_checker=False,
    )
    made.tokenize_prompt = lambda *_, **__: ([3, 4, 5, 6, 1, 2], [7, 8, 1, 2])
    return made


def _omni_arguments(fx: Framework, pipeline: Any, request: Request, **more: Any) -> dict[str, Any]:
    given = _world(fx, pipeline, request, 5)
    del given["num_videos_per_prompt"]
    return {**given, **more}


_TORCH: dict[str, Any] = {"frameworks": ("torch",)}
_ONE_CONTROL = {
    "two images per prompt": "the control latents get a row for each prompt, not for each video"
}
_ONE_SAMPLE = {
    "two prompts": "the pipeline takes the first of several prompts",
    "two images per prompt": "the call has no such argument",
}

ENTRIES = [
    Entry("CosmosTextToWorldPipeline", _text2world, _world),
    Entry("CosmosVideoToWorldPipeline", _video2world, _from_image),
    Entry(
        "CosmosVideoToWorldPipeline",
        _video2world,
        partial(_from_image, input_frames_guidance=True, augment_sigma=2.0),
        variant="guided by its frames",
    ),
    Entry("Cosmos2TextToImagePipeline", _text2image2, _image2),
    Entry("Cosmos2VideoToWorldPipeline", _video2world2, partial(_from_image, frames=5)),
    Entry("Cosmos2_5_PredictBasePipeline", _predict25, partial(_world, frames=5), **_TORCH),
    Entry(
        "Cosmos2_5_PredictBasePipeline",
        _predict25,
        _from_video,
        variant="from a video",
        impossible={"two prompts": "a video goes with one prompt only"},
        **_TORCH,
    ),
    Entry(
        "Cosmos2_5_TransferPipeline",
        _transfer25,
        _controlled,
        impossible=_ONE_CONTROL,
        **_TORCH,
    ),
    Entry(
        "Cosmos2_5_TransferPipeline",
        _transfer25,
        partial(_controlled, frames=9),
        variant="two chunks",
        impossible=_ONE_CONTROL,
        **_TORCH,
    ),
    Entry("Cosmos3OmniPipeline", _omni, _omni_arguments, impossible=_ONE_SAMPLE, **_TORCH),
]
