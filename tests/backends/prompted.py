"""A tiny pipeline with a text encoder, and the embeddings that its UNet gets at each step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import ways
from here import NAME, backend, harness
from shapes_model import CHECKPOINT
from transformers import CLIPTextConfig, CLIPTokenizer

from unicb import bind
from unicb.testing.tiny import PIXELS, POOLED_WIDTH, TEXT_WIDTH

Array = npt.NDArray[Any]
STEPS = 6


def with_text(kind: str) -> Any:
    """Text to image with a text encoder, and with the tokenizer of the example's checkpoint."""
    pipe = harness.build(kind)
    tokenizer = CLIPTokenizer.from_pretrained(CHECKPOINT / "tokenizer")
    config = _config(tokenizer, TEXT_WIDTH)
    fx = ways.framework(NAME)
    fx.seed()
    if kind == "text2img":
        encoder = fx.text_model("CLIPTextModel", config)
        pipe.register_modules(tokenizer=tokenizer, text_encoder=encoder)
    else:  # its second encoder alone will do, and is the one that pools
        encoder = fx.text_model("CLIPTextModelWithProjection", config)
        pipe.register_modules(tokenizer_2=tokenizer, text_encoder_2=encoder)
    return pipe


def with_two_encoders() -> Any:
    """Stable Diffusion XL, each of whose two text encoders makes a half of the embeddings."""
    pipe = with_text("xl-text2img")
    fx, config = ways.framework(NAME), _config(pipe.tokenizer_2, TEXT_WIDTH // 2)
    fx.seed()
    pipe.register_modules(
        tokenizer=pipe.tokenizer_2,
        text_encoder=fx.text_model("CLIPTextModel", config),
        text_encoder_2=fx.text_model("CLIPTextModelWithProjection", config),
    )
    return pipe


def _config(tokenizer: Any, width: int) -> Any:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=POOLED_WIDTH,
        max_position_embeddings=tokenizer.model_max_length,
    )


def run(pipe: Any, prompt: Any, *callbacks: Any, guidance: float = 5.0, **keywords: Any) -> Any:
    """The latents of a run with these callbacks."""
    return pipe(
        prompt,
        height=PIXELS,
        width=PIXELS,
        num_inference_steps=STEPS,
        guidance_scale=guidance,
        output_type="latent",
        generator=harness.generator(),
        **keywords,
        **(bind(pipe, *callbacks) if callbacks else {}),
    )[0]


def embeddings_seen(
    pipe: Any, prompt: Any, *callbacks: Any, **keywords: Any
) -> tuple[list[Any], Any]:
    """The embeddings, and the pooled ones where there are any, of each step; and the latents."""
    seen: list[list[Array]] = []

    def around(call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        tensors = [kwargs["encoder_hidden_states"]]
        added = kwargs.get("added_cond_kwargs") or {}
        tensors += [added[name] for name in ("text_embeds",) if name in added]
        seen.append([backend.ops.to_numpy(tensor) for tensor in tensors])
        return call(*args, **kwargs)

    undo = harness.spy(pipe, around)
    try:
        return seen, run(pipe, prompt, *callbacks, **keywords)
    finally:
        undo()


def check_switch(
    before: list[list[Array]], after: list[list[Array]], found: list[list[Array]], at: int
) -> None:
    """Up to step ``at`` as in one plain run, and from there as in another."""
    assert len(before) == len(after) == len(found) == STEPS
    assert not np.allclose(before[0][0], after[0][0])
    for step, tensors in enumerate(found):
        for tensor, expected in zip(tensors, (before if step < at else after)[step], strict=True):
            assert tensor.shape == expected.shape
            # A batch of another size is encoded with another rounding.
            np.testing.assert_allclose(tensor, expected, rtol=0, atol=1e-5)
