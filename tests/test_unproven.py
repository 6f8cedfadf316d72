"""Loops that unicb was not proven on are seen to guide, or refused: on toys of every kind."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest
from guided import BatchOfLocal, CallsOfLocal, FromConditional, Known, Rescaled, facts, watched
from stop_helpers import hooked

from unicb import (
    CFGCutoff,
    GuidanceInterval,
    GuidanceSchedule,
    UnsupportedPipelineError,
    bind,
)
from unicb_numpy.ops import NumpyOps, StrictTensor

PROMPTS = ["x", "y"]


def unproven(kind: Any, **more: Any) -> Any:
    """The toy, with facts that are to be seen."""
    own = {"guidance_scale": "local", **more, "verify": True}
    return type(kind.__name__, (kind,), {"unicb_facts": facts(**own)})()


def left_on(pipe: Any) -> list[str]:
    gc.collect()
    assert "_unicb_own_class" not in vars(type(pipe.scheduler))
    return hooked(pipe)


KINDS: dict[Any, dict[str, Any]] = {
    BatchOfLocal: {},
    FromConditional: {"combination": "from_conditional", "guided_above": 0.0},
    CallsOfLocal: {"cfg": "calls"},
}
CALLBACKS = {
    "cut": lambda: CFGCutoff(cutoff_step_index=3),
    "cut at first": lambda: CFGCutoff(cutoff_step_index=0),
    "interval": lambda: GuidanceInterval(0.3, 0.7),
    "scale": lambda: GuidanceSchedule(3.0),
    "schedule": lambda: GuidanceSchedule([(0.0, 2.0), (0.5, 8.0)]),
}


@pytest.mark.parametrize("name", CALLBACKS)
@pytest.mark.parametrize("kind", KINDS)
def test_as_by_the_facts(kind: Any, name: str) -> None:
    known = type("Known", (kind,), {"unicb_facts": facts(guidance_scale="local", **KINDS[kind])})()
    pipe = unproven(kind, **KINDS[kind])
    plain = pipe(PROMPTS)
    wanted = known(PROMPTS, **bind(known, CALLBACKS[name]()))
    found = pipe(PROMPTS, **bind(pipe, CALLBACKS[name]()))
    assert not np.allclose(plain, wanted)
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-12)
    assert left_on(pipe) == []
    assert (pipe(PROMPTS) == plain).all()


def test_blocks_in_another_order_than_the_facts_have() -> None:
    pipe = unproven(BatchOfLocal, order=("conditional", "unconditional"))
    known = BatchOfLocal()
    wanted = known(PROMPTS, **bind(known, CFGCutoff(0.4)))
    assert (pipe(PROMPTS, **bind(pipe, CFGCutoff(0.4))) == wanted).all()


def test_calls_in_another_order_than_the_facts_have() -> None:
    pipe = unproven(CallsOfLocal, cfg="calls", order=("unconditional", "conditional"))
    with pytest.raises(UnsupportedPipelineError, match=r"part 0 .* is the conditional one"):
        pipe(PROMPTS, **bind(pipe, CFGCutoff(0.4)))
    assert left_on(pipe) == []


def test_rescaled_guidance_is_seen_and_cannot_be_made_anew() -> None:
    pipe, known = unproven(Rescaled), Rescaled()
    wanted = known(PROMPTS, **bind(known, CFGCutoff(0.4)))
    assert (pipe(PROMPTS, **bind(pipe, CFGCutoff(0.4))) == wanted).all()
    with pytest.raises(UnsupportedPipelineError, match="does more to what it has combined"):
        pipe(PROMPTS, **bind(pipe, GuidanceInterval(0.3, 0.7)))
    assert left_on(pipe) == []


class Momentum(BatchOfLocal):
    """Adds half of what the last step had to the difference of the two predictions."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.kept: Any = 0.0
        return super().__call__(*args, **kwargs)

    def combine(  # type: ignore[override]
        self, u: StrictTensor, c: StrictTensor, scale: float
    ) -> StrictTensor:
        self.kept = c.data - u.data + 0.5 * self.kept
        return StrictTensor(u.data + scale * self.kept)


@pytest.mark.parametrize("name", ["interval", "scale", "schedule"])
def test_a_loop_that_remembers_the_step_that_was_made_anew(name: str) -> None:
    """Its first step is clean, and would come back in later ones."""
    pipe = unproven(Momentum)
    with watched(pipe) as rows, pytest.raises(UnsupportedPipelineError, match=r"a scale of \d"):
        pipe(PROMPTS, **bind(pipe, CALLBACKS[name]()))
    assert len(rows) == {"interval": 4, "scale": 2, "schedule": 2}[name]  # the next with guidance
    assert left_on(pipe) == []


def test_a_scale_that_is_not_where_the_facts_have_it() -> None:
    pipe = unproven(BatchOfLocal, scale_names=("steps",))
    pipe(PROMPTS, **bind(pipe, CFGCutoff(0.4)))  # which needs no scale
    with pytest.raises(UnsupportedPipelineError, match=r"a scale of 5.*steps says 10"):
        pipe(PROMPTS, **bind(pipe, GuidanceSchedule(3.0)))
    assert left_on(pipe) == []


def test_nothing_is_read_of_a_step_that_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scale that stays what it was would not show that the loop reads it."""
    pipe = type("Property", (Known,), {"unicb_facts": facts(verify=True)})()
    reads: list[int] = []
    to_numpy = NumpyOps.to_numpy
    monkeypatch.setattr(NumpyOps, "to_numpy", lambda ops, x: reads.append(1) or to_numpy(ops, x))
    for steps in (4, 12):
        pipe(PROMPTS, steps=steps, **bind(pipe, GuidanceSchedule(5.0)))
        reads.append(0)
    first = reads.index(0)
    assert 0 < first <= 4
    assert len(reads) == 2 * (first + 1)


def test_a_run_without_guidance_has_nothing_to_show() -> None:
    pipe = unproven(BatchOfLocal)
    plain = pipe(PROMPTS, guidance_scale=1.0)
    assert (pipe(PROMPTS, guidance_scale=1.0, **bind(pipe, CFGCutoff(0.4))) == plain).all()
