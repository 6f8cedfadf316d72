"""Writes shapes_text_embeddings.npz: what the shapes checkpoint's text encoder gives on PyTorch.

Run it after training the checkpoint anew. The tests of both backends compare with the file.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from transformers import CLIPTextModel, CLIPTokenizer

HERE = Path(__file__).resolve().parent
CHECKPOINT = HERE.parents[2] / "examples" / "shapes" / "checkpoint"
PROMPTS = (
    "a red circle on a blue background",
    "A Yellow STAR, on a black background!",
    "",
    "größer als xyz",
    "a white ring on a red background " * 3,
)


def main() -> None:
    tokenizer = CLIPTokenizer.from_pretrained(CHECKPOINT / "tokenizer")
    encoder = CLIPTextModel.from_pretrained(CHECKPOINT / "text_encoder")
    tokens = tokenizer(
        list(PROMPTS), padding="max_length", truncation=True, return_tensors="pt"
    ).input_ids
    with torch.no_grad():
        embeddings = encoder(tokens)[0]
    np.savez_compressed(
        HERE / "shapes_text_embeddings.npz",
        prompts=np.array(PROMPTS),
        tokens=tokens.numpy(),
        embeddings=embeddings.numpy(),
    )


if __name__ == "__main__":
    main()
