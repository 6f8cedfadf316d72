"""AnimateDiff and PIA: motion models on a UNet, with latents of (batch, channels, frames, ...)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from zoo.entry import Entry, Request
from zoo.framework import Framework

PIXELS = 16
TEXT = 8
TOKENS = 4
#: As many as prompts in the case of two prompts: rows of videos and rows of frames collide.
FRAMES = 2
IMAGE = 6

_ONE_VIDEO = {
    "two images per prompt": "num_videos_per_prompt is set to 1, whatever is asked for",
}
_ONE_PROMPT = {**_ONE_VIDEO, "two prompts": "prompts for frames are a dict: always of one video"}


def _unet(fx: Framework, **more: Any) -> Any:
    return fx.model(
        "UNetMotionModel",
        **{
            "sample_size": PIXELS // 2,
            "block_out_channels": (8, 16),
            "layers_per_block": 1,
            "down_block_types": ("DownBlockMotion", "CrossAttnDownBlockMotion"),
            "up_block_types": ("CrossAttnUpBlockMotion", "UpBlockMotion"),
            "cross_attention_dim": TEXT,
            "num_attention_heads": 2,
            "motion_num_attention_heads": 2,
            "motion_max_seq_length": 8,
            "norm_num_groups": 4,
            **more,
        },
    )


def _controlnet(fx: Framework, **more: Any) -> Any:
    return fx.model(
        "ControlNetModel",
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        conditioning_embedding_out_channels=(4, 4),
        cross_attention_dim=TEXT,
        attention_head_dim=2,
        norm_num_groups=4,
        **more,
    )


def _sparse_controlnet(fx: Framework, **more: Any) -> Any:
    return fx.model(
        "SparseControlNetModel",
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlockMotion", "CrossAttnDownBlockMotion"),
        cross_attention_dim=TEXT,
        attention_head_dim=2,
        motion_num_attention_heads=2,
        norm_num_groups=4,
        **more,
    )


def _scribble_controlnet(fx: Framework) -> Any:
    return _sparse_controlnet(
        fx,
        conditioning_channels=3,
        use_simplified_condition_embedding=False,
        conditioning_embedding_out_channels=(4, 4),
    )


def _vae(fx: Framework) -> Any:
    return fx.model(
        "AutoencoderKL",
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=PIXELS,
    )


def _adapter(fx: Framework) -> Any:
    return fx.model(
        "MotionAdapter",
        block_out_channels=(8, 16),
        motion_layers_per_block=1,
        motion_num_attention_heads=2,
        motion_norm_num_groups=4,
        motion_max_seq_length=8,
    )


def _pipeline(
    class_name: str, unet: dict[str, Any] | None = None, **parts: Callable[[Framework], Any]
) -> Callable[[Framework], Any]:
    def build(fx: Framework) -> Any:
        return fx.pipeline(
            class_name,
            unet=_unet(fx, **(unet or {})),
            motion_adapter=_adapter(fx),
            vae=_vae(fx),
            # Little noise, so that the last steps, which a cut changes, weigh as much as the first.
            scheduler=fx.scheduler(
                "DDIMScheduler", steps_offset=1, beta_end=0.004, clip_sample=False
            ),
            text_encoder=None,
            tokenizer=None,
            **{name: part(fx) for name, part in parts.items()},
        )

    return build


def _common(fx: Framework, request: Request) -> dict[str, Any]:
    rows = request.prompts
    return {
        # Large, so that weights this small let guidance show.
        "prompt_embeds": 20 * fx.normal(rows, TOKENS, TEXT),
        "negative_prompt_embeds": 20 * fx.normal(rows, TOKENS, TEXT, seed=2),
        "num_videos_per_prompt": request.images,
        "num_inference_steps": request.steps,
        "guidance_scale": 9.0 if request.guided else 1.0,
        "generator": fx.generator(),
        "height": PIXELS,
        "width": PIXELS,
        "output_type": "latent",
    }


def _text(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {**_common(fx, request), "num_frames": FRAMES}


def _video(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    size = PIXELS // 2
    latents = fx.normal(request.prompts, 4, FRAMES, size, size, seed=3)
    # Of five steps, the last four are run.
    changed = {"num_inference_steps": request.steps + 1, "strength": 0.8}
    return {**_common(fx, request), **changed, "latents": latents}


def _video_again(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    # FreeInit takes the share that `strength` leaves of it each time.
    return {**_video(fx, pipeline, request), "num_inference_steps": 3 * request.steps}


def _frames(fx: Framework, request: Request, seed: int) -> list[Any]:
    """Make as many pictures as frames; for several prompts, as many lists of that."""
    if request.prompts == 1:
        return [fx.uniform(3, PIXELS, PIXELS, seed=seed + i) for i in range(FRAMES)]
    videos = range(request.prompts)
    return [_frames(fx, Request(), seed + FRAMES * i) for i in videos]


def _with_frames(arguments: Any, nets: int = 1) -> Any:
    def made(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
        each = [_frames(fx, request, 10 * (i + 1)) for i in range(nets)]
        frames = each[0] if nets == 1 else each
        return {**arguments(fx, pipeline, request), "conditioning_frames": frames}

    return made


def _one_frame_guessed(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    made = _with_frames(_text)(fx, pipeline, request)
    frames = made["conditioning_frames"][:1]
    return {**made, "num_frames": 1, "conditioning_frames": frames, "guess_mode": True}


def _with_adapter(build: Any) -> Any:
    """Add an IP-Adapter, loaded from random weights, to what ``build`` builds."""

    def weights(fx: Framework, shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
        made = {key: fx.normal(*shape, seed=i) for i, (key, shape) in enumerate(shapes.items())}
        if fx.name != "mindspore":
            return made
        from mindspore import Parameter

        return {key: Parameter(value, name=key) for key, value in made.items()}

    def made(fx: Framework) -> Any:
        pipeline = build(fx)
        shapes: dict[str, tuple[int, ...]] = {}
        number = 1
        for name in pipeline.unet.attn_processors:
            if not name.endswith("attn2.processor") or "motion_modules" in name:
                continue
            attention = pipeline.unet
            for part in name.removesuffix(".processor").split("."):
                attention = attention[int(part)] if part.isdigit() else getattr(attention, part)
            width = int(attention.to_k.weight.shape[0])
            shapes |= {f"{number}.to_{x}_ip.weight": (width, TEXT) for x in "kv"}
            number += 2
        projection = {
            "proj.weight": (4 * TEXT, IMAGE),
            "proj.bias": (4 * TEXT,),
            "norm.weight": (TEXT,),
            "norm.bias": (TEXT,),
        }
        pipeline.unet._load_ip_adapter_weights(
            [{"image_proj": weights(fx, projection), "ip_adapter": weights(fx, shapes)}]
        )
        return pipeline

    return made


def _with_picture(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    # One picture for every row: the pipeline repeats what it is given for each prompt.
    embeds = fx.normal(2 if request.guided else 1, 1, IMAGE, seed=4)
    if not request.guided:
        embeds = fx.normal(2, 1, IMAGE, seed=4)[1:]
    return {**_text(fx, pipeline, request), "ip_adapter_image_embeds": [embeds]}


def _free_init(build: Any, **options: Any) -> Any:
    def made(fx: Framework) -> Any:
        pipeline = build(fx)
        pipeline.enable_free_init(num_iters=2, **options)
        return pipeline

    return made


def _free_noise(fx: Framework) -> Any:
    pipeline = _pipeline("AnimateDiffPipeline")(fx)

    def encode(prompt: list[str], negative_prompt: Any = None, **_: Any) -> tuple[Any, Any]:
        seeds = [1 + len(text) for text in (negative_prompt or prompt)]
        rows = [np.random.default_rng(seed).normal(size=(TOKENS, TEXT)) for seed in seeds]
        return 20 * fx.tensor(rows), 20 * fx.tensor(rows)

    pipeline.encode_prompt = encode
    pipeline.enable_free_noise(context_length=FRAMES, context_stride=1)
    return pipeline


def _prompts_for_frames(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    made = _text(fx, pipeline, request)
    del made["prompt_embeds"], made["negative_prompt_embeds"]
    prompts = {"prompt": {0: "a", 3: "bcd"}, "negative_prompt": {0: "efghi"}}
    return {**made, **prompts, "num_frames": 2 * FRAMES}


_XL = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": TEXT + 6 * 4,
}


def _xl(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    pooled = {
        "pooled_prompt_embeds": fx.normal(request.prompts, TEXT, seed=5),
        "negative_pooled_prompt_embeds": fx.normal(request.prompts, TEXT, seed=6),
    }
    return {**_text(fx, pipeline, request), **pooled}


def _xl_rescaled(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    return {**_xl(fx, pipeline, request), "guidance_rescale": 0.7}


def _none(fx: Framework) -> None:
    return None


def _multi(fx: Framework) -> list[Any]:
    return [_controlnet(fx), _controlnet(fx)]


def _sparse(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    frame = fx.uniform(1, 3, PIXELS, PIXELS, seed=9)
    more = {"conditioning_frames": frame, "controlnet_frame_indices": [1]}
    return {**_text(fx, pipeline, request), **more}


def _pia(fx: Framework, pipeline: Any, request: Request) -> dict[str, Any]:
    image = fx.uniform(request.prompts, 3, PIXELS, PIXELS, seed=9)
    return {**_text(fx, pipeline, request), "image": image}


_TEXT_TO_VIDEO = _pipeline("AnimateDiffPipeline")
_CONTROLNET = _pipeline("AnimateDiffControlNetPipeline", controlnet=_controlnet)
_VIDEO = "AnimateDiffVideoToVideoPipeline"
_VIDEO_CONTROLNET = "AnimateDiffVideoToVideoControlNetPipeline"

_TORCH = ("torch",)


def _sparse_of_latents(fx: Framework) -> Any:
    made = _pipeline("AnimateDiffSparseControlNetPipeline", controlnet=_sparse_controlnet)(fx)
    size = PIXELS // 2
    # The pipeline gives its autoencoder no generator.
    made.prepare_image = lambda *_, **__: fx.normal(1, 4, 1, size, size, seed=9)
    return made


ENTRIES = [
    Entry("AnimateDiffPipeline", _TEXT_TO_VIDEO, _text, _ONE_VIDEO),
    Entry(
        "AnimateDiffPipeline",
        _with_adapter(_TEXT_TO_VIDEO),
        _with_picture,
        _ONE_VIDEO,
        "ip-adapter",
    ),
    Entry(
        "AnimateDiffPipeline", _free_init(_TEXT_TO_VIDEO), _text, _ONE_VIDEO, "free-init", _TORCH
    ),
    Entry(
        "AnimateDiffPipeline",
        _free_init(_TEXT_TO_VIDEO, use_fast_sampling=True),
        _text,
        _ONE_VIDEO,
        "fast free-init",
        _TORCH,
    ),
    Entry("AnimateDiffPipeline", _free_noise, _prompts_for_frames, _ONE_PROMPT, "free-noise"),
    Entry("AnimateDiffControlNetPipeline", _CONTROLNET, _with_frames(_text), _ONE_VIDEO),
    Entry(
        "AnimateDiffControlNetPipeline",
        _pipeline("AnimateDiffControlNetPipeline", controlnet=_multi),
        _with_frames(_text, nets=2),
        _ONE_VIDEO,
        "two ControlNets",
    ),
    Entry(
        "AnimateDiffControlNetPipeline",
        _CONTROLNET,
        _one_frame_guessed,
        {**_ONE_VIDEO, "two prompts": "its residuals have half of the rows: they fit if it is one"},
        "guess mode",
        saves_less="the ControlNet gets the conditional rows alone, and keeps them",
    ),
    Entry(
        "AnimateDiffSDXLPipeline",
        _pipeline("AnimateDiffSDXLPipeline", _XL, text_encoder_2=_none, tokenizer_2=_none),
        _xl,
        _ONE_VIDEO,
    ),
    Entry(
        "AnimateDiffSDXLPipeline",
        _pipeline("AnimateDiffSDXLPipeline", _XL, text_encoder_2=_none, tokenizer_2=_none),
        _xl_rescaled,
        _ONE_VIDEO,
        "rescaled",
    ),
    Entry(
        "AnimateDiffSparseControlNetPipeline",
        _sparse_of_latents,
        _sparse,
        _ONE_VIDEO,
    ),
    Entry(
        "AnimateDiffSparseControlNetPipeline",
        _pipeline("AnimateDiffSparseControlNetPipeline", controlnet=_scribble_controlnet),
        _sparse,
        _ONE_VIDEO,
        "of pixels",
    ),
    Entry(_VIDEO, _pipeline(_VIDEO), _video, _ONE_VIDEO),
    Entry(_VIDEO, _free_init(_pipeline(_VIDEO)), _video_again, _ONE_VIDEO, "free-init", _TORCH),
    Entry(
        _VIDEO_CONTROLNET,
        _pipeline(_VIDEO_CONTROLNET, controlnet=_controlnet),
        _with_frames(_video),
        _ONE_VIDEO,
    ),
    Entry(
        _VIDEO_CONTROLNET,
        _pipeline(_VIDEO_CONTROLNET, controlnet=_multi),
        _with_frames(_video, nets=2),
        _ONE_VIDEO,
        "two ControlNets",
        _TORCH,  # the port looks for an attribute that only compiled torch models have
    ),
    Entry("PIAPipeline", _pipeline("PIAPipeline", {"in_channels": 9}), _pia, _ONE_VIDEO),
]
