"""The checkpoint of examples/shapes, read and run by mindone.diffusers."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import mindspore
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[3]
EXAMPLE = ROOT / "examples" / "shapes"
EMBEDDINGS = ROOT / "tests" / "backends" / "data" / "shapes_text_embeddings.npz"


def _module(name: str) -> Any:
    sys.path.insert(0, str(EXAMPLE))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(EXAMPLE))


generating, judging = _module("generate"), _module("judge")


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return generating.load_pipeline("mindspore", EXAMPLE / "checkpoint")


def test_the_tokenizer_gives_the_stored_tokens(pipeline: Any) -> None:
    stored = np.load(EMBEDDINGS)
    encoded = pipeline.tokenizer(
        stored["prompts"].tolist(), padding="max_length", truncation=True, return_tensors="np"
    )
    np.testing.assert_array_equal(encoded.input_ids, stored["tokens"])


def test_the_text_encoder_gives_the_embeddings_it_gives_on_torch(pipeline: Any) -> None:
    stored = np.load(EMBEDDINGS)
    found = pipeline.text_encoder(mindspore.Tensor(stored["tokens"]))[0].asnumpy()
    np.testing.assert_allclose(found, stored["embeddings"], rtol=0, atol=2e-5)


def test_pictures_show_what_is_asked(pipeline: Any) -> None:
    scenes, latents = generating.random_requests(12, seed=11)
    captions = [scene.caption for scene in scenes]
    images = generating.generate(pipeline, captions, latents, generating.BEST_GUIDANCE, steps=15)
    assert images[0].size == (64, 64)
    # One picture may fail, for the model is not perfect.
    assert judging.score(images, scenes).joint >= 11 / 12
