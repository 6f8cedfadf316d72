"""The checkpoint of examples/shapes, read and run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from here import NAME, backend, tensor
from shapes_model import CHECKPOINT, script

EMBEDDINGS = Path(__file__).parents[1] / "data" / "shapes_text_embeddings.npz"
generating, judging = script("generate"), script("judge")


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return generating.load_pipeline(NAME, CHECKPOINT)


def test_the_tokenizer_gives_the_stored_tokens(pipeline: Any) -> None:
    stored = np.load(EMBEDDINGS)
    encoded = pipeline.tokenizer(
        stored["prompts"].tolist(), padding="max_length", truncation=True, return_tensors="np"
    )
    np.testing.assert_array_equal(encoded.input_ids, stored["tokens"])


def test_the_text_encoder_gives_the_stored_embeddings(pipeline: Any) -> None:
    stored = np.load(EMBEDDINGS)
    with backend.fork_rng():
        found = backend.ops.to_numpy(pipeline.text_encoder(tensor(stored["tokens"]))[0])
    np.testing.assert_allclose(found, stored["embeddings"], rtol=0, atol=2e-5)


def test_pictures_show_what_is_asked(pipeline: Any) -> None:
    scenes, latents = generating.random_requests(12, seed=11)
    captions = [scene.caption for scene in scenes]
    images = generating.generate(pipeline, captions, latents, generating.BEST_GUIDANCE, steps=15)
    assert images[0].size == (64, 64)
    # One picture may fail, for the model is not perfect.
    assert judging.score(images, scenes).joint >= 11 / 12
