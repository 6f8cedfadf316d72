"""Build tiny pipelines with random weights, for harnesses of frameworks that are shaped like
diffusers.

They are built from configurations, without any download.
"""

from __future__ import annotations

import string
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from unicb.backend import Around
from unicb.testing.harness import Case, Harness

#: For each kind: the pipeline class, and the traits in which the kind differs.
KINDS: dict[str, tuple[str, frozenset[str]]] = {
    "text2img": ("StableDiffusionPipeline", frozenset()),
    "order-2": ("StableDiffusionPipeline", frozenset({"order-2"})),
    "rescale": ("StableDiffusionPipeline", frozenset({"rescale", "deep"})),
    "prompts": ("StableDiffusionPipeline", frozenset({"prompts"})),
    "ip-adapter": ("StableDiffusionPipeline", frozenset({"ip-adapter", "deep"})),
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
    "xl-ip-adapter": ("StableDiffusionXLPipeline", frozenset({"xl", "ip-adapter", "deep"})),
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


class TinyPipelines(ABC):
    """Build tiny pipelines of one framework.

    Args:
        library: the module with diffusers' classes, or a port's, under the same names.
        text_encoder: the framework's ``CLIPTextModel``.
    """

    def __init__(self, library: Any, text_encoder: Callable[[Any], Any]) -> None:
        self._library, self._new_text_encoder = library, text_encoder

    @abstractmethod
    def seed(self) -> None:
        """Seed the generator of the framework's initial weights."""

    @abstractmethod
    def ready(self, model: Any) -> Any:
        """Put a model into inference mode, and return the model."""

    @abstractmethod
    def fill_zeros(self, model: Any) -> None:
        """Give random values to parameters that are all zero, as in a new ControlNet, which has no
        effect."""

    def add_ip_adapter(self, pipeline: Any) -> None:
        """Load an IP-Adapter with random weights. Called only for kinds that have one."""
        raise NotImplementedError

    def build(self, kind: str) -> Any:
        """Build a tiny pipeline. Most kinds have no text encoder, and get embeddings."""
        class_name, traits = KINDS[kind]
        self.seed()
        parts: dict[str, Any] = {
            "unet": self._unet(traits),
            "vae": self._vae(traits),
            "scheduler": self._scheduler(traits),
        }
        if "controlnet" in traits:
            nets = [self._controlnet(traits) for _ in range(2 if "multi" in traits else 1)]
            parts["controlnet"] = nets if "multi" in traits else nets[0]
        if "prompts" in traits:
            parts |= {"text_encoder": self._text_encoder(), "tokenizer": _tokenizer()}
        else:
            parts |= dict.fromkeys(("text_encoder", "tokenizer"))
        if "xl" in traits:
            parts |= dict.fromkeys(("text_encoder_2", "tokenizer_2"))
            if "controlnet" in traits or "image" not in traits:
                parts["add_watermarker"] = False
        else:
            parts |= {"safety_checker": None, "feature_extractor": None}
            parts["requires_safety_checker"] = False
        pipeline = getattr(self._library, class_name)(**parts)
        if "ip-adapter" in traits:
            self.add_ip_adapter(pipeline)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def _unet(self, traits: frozenset[str]) -> Any:
        return self.ready(
            self._library.UNet2DConditionModel(
                sample_size=PIXELS // 2,
                in_channels=9 if "9" in traits else 4,
                out_channels=4,
                **_unet_blocks(traits),
                **_common(traits),
            )
        )

    def _controlnet(self, traits: frozenset[str]) -> Any:
        net = self._library.ControlNetModel(
            in_channels=4,
            conditioning_embedding_out_channels=(4, 8),
            **_ONE_BLOCK,
            **_common(traits),
        )
        self.fill_zeros(net)
        return self.ready(net)

    def _vae(self, traits: frozenset[str]) -> Any:
        return self.ready(
            self._library.AutoencoderKL(
                block_out_channels=(8, 8),
                down_block_types=("DownEncoderBlock2D",) * 2,
                up_block_types=("UpDecoderBlock2D",) * 2,
                latent_channels=4,
                norm_num_groups=4,
                sample_size=PIXELS,
                scaling_factor=0.13025 if "xl" in traits else 0.18215,
            )
        )

    def _text_encoder(self) -> Any:
        import transformers

        config = transformers.CLIPTextConfig(
            vocab_size=2 + len(string.printable),
            hidden_size=TEXT_WIDTH,
            intermediate_size=TEXT_WIDTH,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=TOKENS,
        )
        return self.ready(self._new_text_encoder(config))

    def _scheduler(self, traits: frozenset[str]) -> Any:
        name = "HeunDiscreteScheduler" if "order-2" in traits else "DDIMScheduler"
        betas = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
        return getattr(self._library, name)(steps_offset=1, clip_sample=False, **betas)


def _unet_blocks(traits: frozenset[str]) -> dict[str, Any]:
    """Return the configuration of a UNet's blocks: one down and one up, as most checks do not
    depend on them; several of each for deep UNets, to check cancelling and the scales of an
    IP-Adapter by block."""
    if "deep" in traits:
        return {
            "block_out_channels": (8, 16),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        }
    return {**_ONE_BLOCK, "up_block_types": ("CrossAttnUpBlock2D",), "mid_block_type": None}


_ONE_BLOCK = {"block_out_channels": (8,), "down_block_types": ("CrossAttnDownBlock2D",)}


def _common(traits: frozenset[str]) -> dict[str, Any]:
    """Return the configuration shared by a UNet and its ControlNet."""
    config: dict[str, Any] = {
        "layers_per_block": 1,
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


def _tokenizer() -> Any:
    """Make a tokenizer with one token for each letter, because other tokenizers need files."""
    import tokenizers
    import transformers

    letters = ["[PAD]", "[UNK]", *string.printable]
    vocabulary = {letter: index for index, letter in enumerate(letters)}
    split = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    split.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex("."), "isolated")
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]"}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=split, model_max_length=TOKENS, **special
    )


class TinyHarness(Harness):
    """``TinyHarness`` is the base class of harnesses that use :class:`TinyPipelines`.

    Attributes:
        pipelines: builds the pipelines of :meth:`build`.
        call_name: name of the method that a model's call runs, such as "forward".
    """

    pipelines: TinyPipelines
    call_name = "forward"
    kinds = tuple(KINDS)
    single_prompt_kinds = ("controlnet-multi", "xl-controlnet-multi")

    @abstractmethod
    def generator(self) -> Any:
        """Return a seeded generator that the framework's pipelines accept."""

    def build(self, kind: str) -> Any:
        return self.pipelines.build(kind)

    def run(self, pipeline: Any, case: Case, **keywords: Any) -> npt.NDArray[Any]:
        out = pipeline(
            **self.arguments(case),
            guidance_scale=case.guidance_scale,
            num_images_per_prompt=case.images_per_prompt,
            generator=self.generator(),
            output_type="latent",
            **keywords,
        )
        return self.backend.ops.to_numpy(out[0])

    def spy(self, pipeline: Any, around: Around) -> Callable[[], None]:
        unet = pipeline.unet
        base = type(unet)

        def call(unet: Any, *args: Any, **kwargs: Any) -> Any:
            return around(partial(getattr(base, self.call_name), unet), args, kwargs)

        unet.__class__ = type("Spied", (base,), {self.call_name: call})
        return lambda: setattr(unet, "__class__", base)

    def traces(self, pipeline: Any) -> object:
        models = [pipeline.unet, getattr(pipeline, "controlnet", None)]
        # By the class's id, because a class of unicb's equals the class that it was made from.
        found = [(id(type(m)), sorted(vars(m))) for m in models if m is not None]
        return found, pipeline._guidance_scale

    def arguments(self, case: Case) -> dict[str, Any]:
        """Return seeded arguments for the call of a tiny pipeline of the case's kind."""
        _, traits = KINDS[case.kind]
        random = np.random.default_rng(1)

        def normal(*shape: int) -> Any:
            return self.tensor(random.normal(size=shape), "float32")

        def pictures() -> Any:
            shape = (case.prompts, 3, PIXELS, PIXELS)
            return self.tensor(random.uniform(size=shape), "float32")

        embeds = (case.prompts, 5, TEXT_WIDTH)
        found: dict[str, Any] = {
            "prompt_embeds": normal(*embeds),
            "negative_prompt_embeds": normal(*embeds),
            "height": PIXELS,
            "width": PIXELS,
            "num_inference_steps": case.steps,
        }
        if "prompts" in traits:
            del found["prompt_embeds"], found["negative_prompt_embeds"]
            found["prompt"] = [f"prompt {i}" for i in range(case.prompts)]
        if "xl" in traits:
            found["pooled_prompt_embeds"] = normal(case.prompts, POOLED_WIDTH)
            found["negative_pooled_prompt_embeds"] = normal(case.prompts, POOLED_WIDTH)
        if "image" in traits:
            found |= {"image": pictures(), "strength": 1.0}
            if "mask" not in traits and "controlnet" not in traits:
                del found["height"], found["width"]
        if "mask" in traits:
            mask = np.zeros((case.prompts, 1, PIXELS, PIXELS))
            mask[:, :, 4:12, 4:12] = 1
            found["mask_image"] = self.tensor(mask, "float32")
        if "controlnet" in traits:
            control = [pictures(), pictures()] if "multi" in traits else pictures()
            found["control_image" if "image" in traits else "image"] = control
            found["guess_mode"] = "guess" in traits
        if "ip-adapter" in traits:
            both = normal(2, 1, IMAGE_WIDTH)  # unconditional and conditional
            found["ip_adapter_image_embeds"] = [both if case.guidance_scale > 1 else both[1:]]
        if "rescale" in traits:
            found["guidance_rescale"] = 0.7
        return found
