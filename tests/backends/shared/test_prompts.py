"""PromptSchedule and PromptWeights on pipelines with text encoders."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from here import backend, harness, on
from prompted import STEPS, check_switch, embeddings_seen, run, with_text

from unicb.callbacks.prompts import PromptSchedule, PromptWeights

ONE, OTHER = "a red circle", "a green square"
TWO, OTHERS = [ONE, OTHER], ["a blue star", "a white ring"]
#: Fewer on MindSpore, where runs take long: what is encoded and put in knows no framework.
KINDS = on(torch=("text2img", "xl-text2img"), mindspore=("text2img",))
PROMPTS = ((ONE, OTHER), (TWO, OTHERS))
CASES = on(
    torch=[(k, *both, *rest) for k, both, *rest in product(KINDS, PROMPTS, (1, 2), (5.0, 1.0))],
    mindspore=[("text2img", TWO, OTHERS, 2, 5.0)],
)


@pytest.mark.parametrize(("kind", "prompts", "others", "images", "guidance"), CASES)
def test_the_denoiser_is_told_the_other_prompt(
    kind: str, prompts: Any, others: Any, images: int, guidance: float
) -> None:
    """Pooled embeddings included; the negative ones stay."""
    pipe = with_text(kind)
    keywords = {"guidance": guidance, "num_images_per_prompt": images}
    before, _ = embeddings_seen(pipe, prompts, **keywords)
    after, _ = embeddings_seen(pipe, others, **keywords)
    schedule = PromptSchedule([(0.0, prompts), (0.5, others)])
    found, _ = embeddings_seen(pipe, prompts, schedule, **keywords)
    check_switch(before, after, found, STEPS // 2)


@pytest.mark.parametrize("kind", KINDS)
def test_negative_prompts(kind: str) -> None:
    pipe = with_text(kind)
    before, _ = embeddings_seen(pipe, ONE, negative_prompt="a star")
    after, _ = embeddings_seen(pipe, OTHER, negative_prompt="a ring")
    schedule = PromptSchedule([(0.5, OTHER)], negative=[(0.0, "a star"), (0.5, "a ring")])
    found, _ = embeddings_seen(pipe, ONE, schedule, negative_prompt="a star")
    check_switch(before, after, found, STEPS // 2)


def test_a_negative_prompt_of_a_call_that_has_none() -> None:
    pipe = with_text("text2img")
    before, _ = embeddings_seen(pipe, ONE)
    after, _ = embeddings_seen(pipe, ONE, negative_prompt=OTHER)
    found, _ = embeddings_seen(pipe, ONE, PromptSchedule([(0.0, ONE)], negative=[(0.5, OTHER)]))
    check_switch(before, after, found, STEPS // 2)


@pytest.mark.parametrize("kind", KINDS)
def test_weights(kind: str) -> None:
    pipe = with_text(kind)
    plain = [embeddings_seen(pipe, text)[0][0] for text in (ONE, OTHER)]
    blend = PromptWeights({ONE: 1, OTHER: lambda progress: 3.0 if progress > 0.5 else 1.0})
    found, _ = embeddings_seen(pipe, ONE, blend)
    for one, other, *mixed in zip(*plain, found[1], found[-1], strict=True):
        np.testing.assert_allclose(mixed[0], 0.5 * one + 0.5 * other, rtol=0, atol=1e-5)
        np.testing.assert_allclose(mixed[1], 0.25 * one + 0.75 * other, rtol=0, atol=1e-5)


def test_the_same_prompt_changes_no_bit_and_no_random_number() -> None:
    pipe = with_text(KINDS[-1])

    def drawn(*callbacks: Any) -> tuple[Any, Any]:
        with backend.fork_rng():
            return backend.ops.to_numpy(run(pipe, ONE, *callbacks)), harness.draw()

    plain, same = drawn(), drawn(PromptSchedule([(0.0, ONE), (0.5, ONE)]))
    assert np.array_equal(plain[1], same[1])
    within = on(torch=1e-5, mindspore=1e-4)
    np.testing.assert_allclose(same[0], plain[0], rtol=0, atol=within)
