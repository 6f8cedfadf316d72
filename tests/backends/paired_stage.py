"""A tiny Stable Diffusion with a text encoder and an IP-Adapter, for callbacks in company."""

from __future__ import annotations

import inspect
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import ways
from paired import PROMPTS, Array, Stage
from transformers import CLIPTextConfig, CLIPTokenizer

from unicb.testing import Harness
from zoo.families.stable_diffusion import IMAGE, PIXELS, TEXT

TOKENIZER = Path(__file__).parents[2] / "examples" / "shapes" / "checkpoint" / "tokenizer"


class Tiny(Stage):
    """Of the framework named; DDIM, random weights."""

    steps = 6
    within = 1e-4

    def __init__(self, name: str, harness: Harness) -> None:
        self.harness = harness
        self._fx = ways.framework(name)
        self._fx.seed()
        self.pipe = ways.all_entries(name)["StableDiffusionPipeline (IP-Adapter)"].build(self._fx)
        tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER)
        config = CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=tokenizer.model_max_length,
        )
        encoder = self._fx.text_model("CLIPTextModel", config)
        self.pipe.register_modules(tokenizer=tokenizer, text_encoder=encoder)
        self.embedding = cache(self._embedding)  # type: ignore[method-assign]

    def call(self, **keywords: Any) -> Array:
        out = self.pipe(
            PROMPTS,
            height=PIXELS,
            width=PIXELS,
            num_inference_steps=self.steps,
            guidance_scale=self.guidance,
            generator=self._fx.generator(),
            ip_adapter_image_embeds=[self._fx.normal(2, 1, IMAGE, seed=9)],
            output_type="latent",
            **keywords,
        )[0]
        return np.asarray(self.harness.backend.ops.to_numpy(out))

    def embedding(self, text: str) -> Array:
        return self._embedding(text)

    def _embedding(self, text: str) -> Array:
        given = {"num_images_per_prompt": 1, "do_classifier_free_guidance": False}
        if "device" in inspect.signature(self.pipe.encode_prompt).parameters:
            given["device"] = self.pipe._execution_device
        with self.harness.backend.fork_rng():
            found = self.pipe.encode_prompt(prompt=[text], **given)[0]
            return np.asarray(self.harness.backend.ops.to_numpy(found))[0]

    def advance(self, x: Array, noise: Array, index: int) -> Array:
        """A step of DDIM with eta = 0 (arXiv 2010.02502, eq. 12)."""
        a, b = self._levels(index)
        x0 = (x - np.sqrt(1 - a) * noise) / np.sqrt(a)
        return np.asarray(np.sqrt(b) * x0 + np.sqrt(1 - b) * noise)

    def denoised(self, start: Array, end: Array, index: int) -> Array:
        """The same solved for x0, with the noise taken out of the two."""
        (a, b), sigmas = self._levels(index), [np.sqrt(1 - x) for x in self._levels(index)]
        x0 = (sigmas[0] * end - sigmas[1] * start) / (
            sigmas[0] * np.sqrt(b) - sigmas[1] * np.sqrt(a)
        )
        return np.asarray(x0)

    def _levels(self, index: int) -> tuple[float, float]:
        """The share of the signal in the latents' variance, before and after a step."""
        scheduler = self.pipe.scheduler
        assert type(scheduler).__name__ == "DDIMScheduler"
        stride = scheduler.config.num_train_timesteps // self.steps
        now = int(np.asarray(self._host(scheduler.timesteps))[index])
        alphas = np.asarray(self._host(scheduler.alphas_cumprod), np.float64)
        last = float(self._host(scheduler.final_alpha_cumprod))
        return float(alphas[now]), float(alphas[now - stride]) if now >= stride else last

    def _host(self, value: Any) -> Any:
        is_tensor = self.harness.backend.is_tensor(value)
        return self.harness.backend.ops.to_numpy(value) if is_tensor else value
