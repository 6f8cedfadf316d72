"""Each pair of callbacks on a tiny pipeline of diffusers: each keeps its promises in company."""

from __future__ import annotations

from itertools import combinations_with_replacement
from pathlib import Path

import numpy as np
import pytest
from paired import MEMBERS, Array, Company, rivalry
from paired_stage import Tiny

from unicb_torch.harness import harness

PAIRS = [
    # Now the one first, now the other.
    pair if number % 2 else pair[::-1]
    for number, pair in enumerate(combinations_with_replacement(MEMBERS, 2))
    if rivalry(*pair) is None
]


@pytest.fixture(scope="module")
def stage() -> Tiny:
    return Tiny("torch", harness)


@pytest.fixture(scope="module")
def plain(stage: Tiny) -> Array:
    return stage.call()


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
    np.testing.assert_array_equal(stage.call(), plain)
