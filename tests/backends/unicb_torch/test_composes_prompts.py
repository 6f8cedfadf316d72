"""CFGCutoff with prompts as texts, as many and as unequal as pipelines take them."""

from __future__ import annotations

from typing import Any

import pytest
from prompted import with_text
from test_composes import STEPS, check_cut, seeded

from unicb.testing.tiny import PIXELS

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
