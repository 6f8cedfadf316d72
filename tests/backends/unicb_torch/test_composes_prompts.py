"""CFGCutoff with prompts as texts, as many and as unequal as pipelines take them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_composes import STEPS, check_cut, seeded
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from unicb.testing.tiny import PIXELS, POOLED_WIDTH, TEXT_WIDTH
from unicb_torch.harness import harness


def with_text(kind: str) -> Any:
    """Text to image with a text encoder, and with the tokenizer of the example's checkpoint."""
    pipe = harness.build(kind)
    folder = Path(__file__).parents[3] / "examples" / "shapes" / "checkpoint" / "tokenizer"
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=POOLED_WIDTH,
        max_position_embeddings=tokenizer.model_max_length,
    )
    torch.manual_seed(2)
    if kind == "text2img":
        pipe.register_modules(tokenizer=tokenizer, text_encoder=CLIPTextModel(config).eval())
    else:  # its second encoder alone will do, and is the one that pools
        encoder = CLIPTextModelWithProjection(config).eval()
        pipe.register_modules(tokenizer_2=tokenizer, text_encoder_2=encoder)
    return pipe


ONE, TWO = "a red circle", ["a red circle", "a green square"]


@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize(
    ("kind", "prompt", "negative"),
    [
        ("text2img", ONE, None),
        ("text2img", ONE, "a blue square"),
        ("text2img", TWO, None),
        ("text2img", TWO, ["a blue square", "a red square"]),
        ("xl-text2img", ONE, None),
        ("xl-text2img", TWO, None),
        ("xl-text2img", TWO, "a blue square"),  # which Stable Diffusion 1 itself refuses
    ],
)
def test_prompts_and_negative_prompts(kind: str, prompt: Any, negative: Any, images: int) -> None:
    """As many of each as the pipeline allows."""
    pipe = with_text(kind)
    keywords = {
        "prompt": prompt,
        "negative_prompt": negative,
        "num_images_per_prompt": images,
        "guidance_scale": 5.0,
        "num_inference_steps": STEPS,
        "height": PIXELS,
        "width": PIXELS,
    }
    rows = check_cut(pipe, seeded(pipe, keywords))
    count = images * (1 if isinstance(prompt, str) else len(prompt))
    assert rows == [2 * count] * 2 + [count] * 2
