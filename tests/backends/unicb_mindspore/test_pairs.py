"""Some pairs of callbacks on a tiny pipeline of mindone: each keeps its promises in company."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from paired import MEMBERS, Array, Company
from paired_stage import Tiny

from unicb_mindspore.harness import harness

#: Every callback, beside one that touches the same: the denoiser's hooks, its arguments or
#: processors, the latents, the end of the run. All pairs are run on the other backends.
PAIRS = [
    ("IPAdapterScale", "CFGCutoff"),
    ("GuidanceInterval", "PromptSchedule"),
    ("PromptWeights", "IPAdapterCutoff"),
    ("LatentCorrection", "Preview"),
    ("a function", "GuidanceSchedule"),
    ("LatentCorrection", "NaNGuard"),
    ("Trajectory", "Interrupt"),
    ("StepTimer", "Progress"),
]


@pytest.fixture(scope="module")
def stage() -> Tiny:
    return Tiny("mindspore", harness)


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


def test_a_plain_run_after_all_of_them(stage: Tiny, plain: Array) -> None:
    np.testing.assert_array_equal(stage.call(), plain)
