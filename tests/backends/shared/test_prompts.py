"""PromptSchedule and PromptWeights on pipelines with text encoders."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from here import backend, harness, on
from prompted import STEPS, check_switch, embeddings_seen, run, with_text, with_two_encoders

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


def encoded(pipe: Any, text: str) -> Any:
    """What the pipeline's own encode_prompt returns."""
    device = on(torch={"device": "cpu"}, mindspore={})
    return pipe.encode_prompt(
        text, num_images_per_prompt=1, do_classifier_free_guidance=True, **device
    )


def compels(made: Any) -> Any:
    """As compel returns embeddings: a tensor, or those and the pooled ones."""
    return made[0] if len(made) == 2 else (made[0], made[2])


@pytest.mark.parametrize("form", [lambda made: made, compels])
@pytest.mark.parametrize("kind", KINDS)
def test_embeddings_in_place_of_a_text(kind: str, form: Any) -> None:
    """The bits of the same prompt as a text; beside texts, too."""
    pipe = with_text(kind)
    before, _ = embeddings_seen(pipe, TWO, num_images_per_prompt=2)
    after, _ = embeddings_seen(pipe, [OTHER, OTHER], num_images_per_prompt=2)
    schedule = PromptSchedule([(0.0, TWO), (0.5, form(encoded(pipe, OTHER)))])
    found, _ = embeddings_seen(pipe, TWO, schedule, num_images_per_prompt=2)
    check_switch(before, after, found, STEPS // 2)


@pytest.mark.parametrize("kind", KINDS)
def test_embeddings_of_another_width_are_refused_by_their_shapes(kind: str) -> None:
    pipe = with_text(kind)
    made = [part if part is None else part[..., :4] for part in encoded(pipe, OTHER)]
    with pytest.raises(ValueError, match=r"prompt_embeds that .* \(1, \d+, 4\).* \(\d+, \d+, 8\)"):
        run(pipe, ONE, PromptSchedule([(0.5, made)]))


def test_prompt_2_of_the_call_and_of_the_schedule() -> None:
    pipe = with_two_encoders()
    second = {"prompt_2": "oil", "negative_prompt": "bad", "negative_prompt_2": "ink"}
    before, _ = embeddings_seen(pipe, ONE, **second)
    after, _ = embeddings_seen(pipe, OTHER, **second)
    alone, _ = embeddings_seen(pipe, OTHER, **{**second, "prompt_2": None})
    assert not np.allclose(after[0][0], alone[0][0])
    found, _ = embeddings_seen(pipe, ONE, PromptSchedule([(0.0, ONE), (0.5, OTHER)]), **second)
    check_switch(before, after, found, STEPS // 2)
    own = {"prompt": OTHER, "prompt_2": OTHER}
    found, _ = embeddings_seen(pipe, ONE, PromptSchedule([(0.5, own)]), **second)
    check_switch(before, alone, found, STEPS // 2)
    other = {**second, "negative_prompt": "worse"}
    after, _ = embeddings_seen(pipe, ONE, **other)
    schedule = PromptSchedule([(0.0, ONE)], negative=[(0.0, "bad"), (0.5, "worse")])
    found, _ = embeddings_seen(pipe, ONE, schedule, **second)
    check_switch(before, after, found, STEPS // 2)


def test_the_same_prompt_changes_no_bit_and_no_random_number() -> None:
    pipe = with_text(KINDS[-1])

    def drawn(*callbacks: Any) -> tuple[Any, Any]:
        with backend.fork_rng():
            return backend.ops.to_numpy(run(pipe, ONE, *callbacks)), harness.draw()

    plain, same = drawn(), drawn(PromptSchedule([(0.0, ONE), (0.5, ONE)]))
    assert np.array_equal(plain[1], same[1])
    within = on(torch=1e-5, mindspore=1e-4)
    np.testing.assert_allclose(same[0], plain[0], rtol=0, atol=within)
