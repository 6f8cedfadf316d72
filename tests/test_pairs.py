"""Every ordered pair of callbacks: refused at bind, or each keeps its promises beside the other."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adapted import AdaptedPipeline
from paired import (
    FAILS,
    MEMBERS,
    PROMPTS,
    RIVALS,
    Array,
    Company,
    Function,
    Member,
    Stage,
    public_callbacks,
    rivalry,
)

from unicb import Callback, GenerationCancelled, LatentsNotFiniteError, Step, bind
from unicb_numpy.harness import harness

PAIRS = list(product(MEMBERS, repeat=2))
ALLOWED = [pair for pair in PAIRS if rivalry(*pair) is None]


class Toy(Stage):
    """The toy pipeline with an IP-Adapter."""

    harness = harness

    def __init__(self) -> None:
        self.pipe = AdaptedPipeline()

    def call(self, **keywords: Any) -> Array:
        found: Array = self.pipe(
            PROMPTS,
            num_inference_steps=self.steps,
            guidance_scale=self.guidance,
            output_type="latent",
            **keywords,
        )
        return found

    def embedding(self, text: str) -> Array:
        row: Array = self.pipe.encode_prompt([text]).data[0]
        return row

    def advance(self, x: Array, noise: Array, index: int) -> Array:
        return x - noise / self.steps

    def denoised(self, start: Array, end: Array, index: int) -> Array:
        """Straight on to a noise level of 0, from 1 - index / steps."""
        return end + (end - start) * (self.steps - index - 1)


class At(Callback):
    """Does something at the end of one step."""

    tensors = ("latents",)

    def __init__(self, action: Any) -> None:
        self.action = action

    def on_step_end(self, step: Step) -> None:
        if step.index == FAILS:
            self.action(step)


class Failed(Exception):
    pass


@pytest.fixture
def toy() -> Toy:
    return Toy()


def make(names: tuple[str, ...], folder: Path) -> list[Member]:
    return [MEMBERS[name](number, folder) for number, name in enumerate(names)]


def test_no_public_callback_is_missing() -> None:
    assert {*MEMBERS} == {"a function", *public_callbacks()}


def test_rivals_are_what_callbacks_own(tmp_path: Path) -> None:
    for name, factory in MEMBERS.items():
        member = factory(0, tmp_path)
        owned = {thing for thing, rivals in RIVALS.items() if name in rivals}
        assert {*getattr(member.callback, "owns", ())} == owned == {member.decides} - {""}


def test_the_page_has_them_all(tmp_path: Path) -> None:
    """With what each decides on, and a page that is there."""
    page = Path(__file__).parents[1] / "docs" / "callbacks.md"
    row = re.compile(r"^\| `?(\w[\w ]*?)`? \|[^|]*\|([^|]*)\|.*\]\((.*)\) \|$", re.MULTILINE)
    rows = row.findall(page.read_text("utf-8"))
    documented = {name: re.sub("[ -]", "_", decides.strip().lower()) for name, decides, _ in rows}
    assert documented == {name: made(0, tmp_path).decides for name, made in MEMBERS.items()}
    assert [link for _, _, link in rows if not (page.parent / link).is_file()] == []


@pytest.mark.parametrize("pair", [pair for pair in PAIRS if pair not in ALLOWED], ids="-".join)
def test_two_that_decide_on_the_same_are_refused(
    toy: Toy, pair: tuple[str, str], tmp_path: Path
) -> None:
    members = make(pair, tmp_path)
    with pytest.raises(ValueError, match=f"both decide on {rivalry(*pair)}: {' and '.join(pair)};"):
        bind(toy.pipe, *(member.callback for member in members))
    toy.call()


@pytest.mark.parametrize("pair", ALLOWED, ids="-".join)
class TestPair:
    def test_each_keeps_its_promises(self, toy: Toy, pair: tuple[str, str], tmp_path: Path) -> None:
        plain, before = toy.call(), toy.left()
        company = Company(toy, make(pair, tmp_path))
        out = company.run()
        stops = [last for member in company.members if (last := member.last()) is not None]
        company.check(steps=min(stops, default=toy.steps - 1) + 1)
        np.testing.assert_array_equal(out, company.seen[-1].latents[-1])
        assert company.binding.state == ("interrupted" if stops else "finished")
        assert toy.left() == before
        np.testing.assert_array_equal(toy.call(), plain)

    def test_when_the_run_is_cancelled(
        self, toy: Toy, pair: tuple[str, str], tmp_path: Path
    ) -> None:
        plain, before = toy.call(), toy.left()
        cancels = At(lambda step: company.binding.cancel())
        company = Company(toy, make(pair, tmp_path), before=[cancels])
        with pytest.raises(GenerationCancelled) as caught:
            company.run()
        company.check(steps=FAILS + 1)
        np.testing.assert_array_equal(caught.value.latents, company.seen[-1].latents[-1])
        assert toy.left() == before
        np.testing.assert_array_equal(toy.call(), plain)

    def test_when_a_callback_before_them_fails(
        self, toy: Toy, pair: tuple[str, str], tmp_path: Path
    ) -> None:
        """They are not called at that step any more, and have shown the ones before it."""

        def fail(step: Step) -> None:
            raise Failed

        plain, before = toy.call(), toy.left()
        company = Company(toy, make(pair, tmp_path), before=[At(fail)])
        with pytest.raises(Failed):
            company.run()
        for member in company.members:
            assert member.steps_told() in (None, FAILS)
        assert toy.left() == before
        np.testing.assert_array_equal(toy.call(), plain)


@pytest.mark.filterwarnings("ignore:latents are not finite")
@pytest.mark.parametrize("guard_is_first", [True, False])
@pytest.mark.parametrize("other", MEMBERS)
def test_the_guard_finds_bad_values_in_company(
    toy: Toy, other: str, guard_is_first: bool, tmp_path: Path
) -> None:
    """Whoever comes before it has had the step; whoever comes behind has not."""

    def spoil(step: Step) -> None:
        step["latents"] = step["latents"] * float("nan")

    plain, before = toy.call(), toy.left()
    pair = ("NaNGuard", other) if guard_is_first else (other, "NaNGuard")
    members = make(pair, tmp_path)
    callbacks = [At(spoil), *(member.callback for member in members)]
    with np.errstate(all="ignore"), pytest.raises(LatentsNotFiniteError) as caught:
        toy.call(**bind(toy.pipe, *callbacks))
    assert caught.value.step == FAILS
    assert members[guard_is_first].steps_told() in (None, FAILS + (not guard_is_first))
    assert toy.left() == before
    np.testing.assert_array_equal(toy.call(), plain)


def test_order_is_seen(toy: Toy, tmp_path: Path) -> None:
    """Two that write the same tensor: in the other order, something else comes of it."""
    correction = MEMBERS["LatentCorrection"]
    one = Company(toy, [Function(0), correction(0, tmp_path)]).run()
    other = Company(toy, [correction(0, tmp_path), Function(0)]).run()
    assert np.abs(one - other).max() > 1e-3
