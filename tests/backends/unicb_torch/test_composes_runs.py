"""CFGCutoff beside what changes which steps a run takes, and runs that do not go as planned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from test_composes import (
    STEPS,
    Call,
    Reference,
    call_of,
    check_cut,
    error,
    normal,
    rows_seen,
    seeded,
    traces,
)
from test_composes_caches import flux, ltx, random, wan

from unicb import CFGCutoff, UnicbError, bind
from unicb_torch.harness import harness
from unicb_torch.pipelines import PIXELS, TEXT_WIDTH

# --------------------------------------------------------------------------- which steps


@pytest.mark.parametrize("name", ["HeunDiscreteScheduler", "KDPM2DiscreteScheduler"])
@pytest.mark.parametrize(("index", "last"), [(1, 2), (2, 2), (3, 4)])
def test_order_2(name: str, index: int, last: int) -> None:
    """Of two half steps, the second corrects the first: both have guidance, or neither has."""
    pipe = harness.build("order-2")
    pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config)
    rows = check_cut(pipe, call_of(pipe, "order-2"), index=index, last=last)
    assert rows == [2] * (last + 1) + [1] * (2 * STEPS - 1 - last - 1)


def test_order_2_of_a_part() -> None:
    """Image to image may begin in the middle of the schedule."""
    pipe = harness.build("img2img")
    pipe.scheduler = diffusers.HeunDiscreteScheduler.from_config(pipe.scheduler.config)
    call = call_of(pipe, "img2img", strength=0.5, num_inference_steps=6)
    check_cut(pipe, call, index=1)
"""
"""
