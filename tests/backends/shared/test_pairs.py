"""Pairs of callbacks on a tiny pipeline: each keeps its promises in company."""

from __future__ import annotations

from itertools import combinations_with_replacement
from pathlib import Path

import numpy as np
import pytest
from here import NAME, harness, on
from paired import MEMBERS, Array, Company, rivalry
from paired_stage import Tiny

EVERY = [
    # Now the one first, now the other.
    pair if number % 2 else pair[::-1]
    for number, pair in enumerate(combinations_with_replacement(MEMBERS, 2))
    if rivalry(*pair) is None
]
#: For MindSpore, where runs take long: every callback, beside one that touches the same, which are
#: the denoiser's hooks, its arguments or processors, the latents, the end of the run.
SOME = [
    ("IPAdapterScale", "CFGCutoff"),
    ("GuidanceInterval", "PromptSchedule"),
    ("PromptWeights", "IPAdapterCutoff"),
    ("LatentCorrection", "Preview"),
    ("a function", "GuidanceSchedule"),
    ("GuidanceRule", "PromptSchedule"),
    ("LatentCorrection", "NaNGuard"),
    ("Trajectory", "Interrupt"),
    ("StepTimer", "Progress"),
]
PAIRS = on(torch=EVERY, mindspore=SOME)


@pytest.fixture(scope="module")
def stage() -> Tiny:
    return Tiny(NAME, harness)


@pytest.fixture(scope="module")
def plain(stage: Tiny) -> Array:
    stage.call()  # the first run in a process may differ from later ones
    return stage.call()


def test_no_callback_is_missing() -> None:
    assert {name for pair in PAIRS for name in pair} == {*MEMBERS}


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_each_keeps_its_promises(
    stage: Tiny, plain: Array, pair: tuple[str, str], tmp_path: Path
) -> None:
    before = stage.left()
    members = [MEMBERS[name](number, tmp_path) for number, name in enumerate(pair)]
    company = Company(stage, members)
    out = company.run()
    stops = [last for member in members if (last := member.last()) is not None]
    company.check(steps=min(stops, default=stage.steps - 1) + 1)
    np.testing.assert_array_equal(out, company.seen[-1].latents[-1])
    assert stage.left() == before
    if NAME == "torch":  # and on the other once, after all of them
        np.testing.assert_array_equal(stage.call(), plain)


def test_a_plain_run_after_all_of_them(stage: Tiny, plain: Array) -> None:
    np.testing.assert_array_equal(stage.call(), plain)
