"""Loops that differ from those that unicb knows by their name: right, or an error."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import edited_loops as edits
import numpy as np
import pytest
import ways
from here import NAME, harness, on

from unicb import (
    AdaptiveProjectedGuidance,
    Callback,
    CFGCutoff,
    GuidanceInterval,
    GuidanceSchedule,
    Preview,
    PreviewFrame,
    Step,
    UnsupportedPipelineError,
    bind,
)
from unicb.testing import Case
from zoo import observed
from zoo.coverage import facts_named
from zoo.entry import CASES, Request

CASE = Case("text2img", prompts=2, steps=6)
CALLBACKS = {
    "cut": lambda: CFGCutoff(cutoff_step_index=2),
    "interval from the start": lambda: GuidanceInterval(0.0, 0.5),
    "interval": lambda: GuidanceInterval(0.5, 1.0),
    "scale": lambda: GuidanceSchedule(3.0),
    "schedule": lambda: GuidanceSchedule([(0.0, 1.0), (0.4, 3.0), (0.8, 1.0)]),
    "rule": lambda: AdaptiveProjectedGuidance(3.0, eta=0.0, momentum=-0.5),
    "rule from the middle on": lambda: AdaptiveProjectedGuidance(3.0, interval=(0.5, 1.0)),
}


class CutAfterOne(Callback):
    """A user's own, which says nothing of guidance before the run."""

    def on_step_end(self, step: Step) -> None:
        step.cut_guidance()


def left_on(pipe: Any) -> list[str]:
    kinds = [type(pipe.scheduler), type(pipe.unet)]
    assert not any("_unicb_own_class" in vars(kind) for kind in kinds)
    return sorted(vars(pipe.unet))


def check_same(changes: Any, callback: Any, rows_more: int) -> None:
    """An edited loop gives what the plain one does, with so many rows computed besides."""
    plain, pipe = harness.build("text2img"), edits.with_loop(harness.build("text2img"), *changes)
    before = left_on(pipe)
    found = []
    for each in (plain, pipe):
        rows: list[int] = []

        def spy(call: Any, args: Any, kwargs: Any, rows: list[int] = rows) -> Any:
            rows.append(int(args[0].shape[0]) if args else int(kwargs["sample"].shape[0]))
            return call(*args, **kwargs)

        undo = harness.spy(each, spy)
        found.append((harness.run(each, CASE, **bind(each, callback())), sum(rows)))
        undo()
    (wanted, known), (out, seen) = found
    np.testing.assert_allclose(out, wanted, rtol=0, atol=2e-5 * wanted.std())
    assert seen == known + rows_more
    assert left_on(pipe) == before


@pytest.mark.parametrize("name", CALLBACKS)
def test_blocks_swapped(name: str) -> None:
    """The conditional rows are those that the loop takes for such. Guidance that is off in the
    first step is computed in that all the same, and left out of what the loop makes of it."""
    whole = 2 if name in ("interval", "schedule", "rule from the middle on") else 0
    check_same(edits.BLOCKS_SWAPPED, CALLBACKS[name], whole)


def test_cut_by_a_callback_of_ones_own() -> None:
    check_same(edits.BLOCKS_SWAPPED, CutAfterOne, 2)


def test_previews_are_as_in_a_known_loop() -> None:
    """What watches the scheduler does not hide it."""
    pipe = edits.with_loop(harness.build("text2img"), *edits.THE_SAME)
    frames: list[PreviewFrame] = []
    harness.run(pipe, CASE, **bind(pipe, CALLBACKS["cut"](), Preview(frames)))
    assert [frame.source for frame in frames] == ["noisy", *["exact"] * 5]


def test_a_loop_that_is_the_same_but_for_its_text() -> None:
    check_same(edits.THE_SAME, CALLBACKS["cut"], 0)


def refused(pipe: Any, callback: Any, match: str) -> None:
    before = left_on(pipe)
    plain = harness.run(pipe, CASE)
    with pytest.raises(UnsupportedPipelineError, match=match):
        harness.run(pipe, CASE, **bind(pipe, callback))
    assert left_on(pipe) == before
    assert np.array_equal(harness.run(pipe, CASE), plain)


@pytest.mark.parametrize("name", ["scale", "schedule"])
def test_a_scale_that_is_read_once(name: str) -> None:
    pipe = edits.with_loop(harness.build("text2img"), *edits.SCALE_IS_LOCAL)
    refused(pipe, CALLBACKS[name](), r"guides with a scale of \d.*says 3")


def test_a_rule_where_the_scale_is_read_once() -> None:
    """It needs no other scale of the loop."""
    check_same(edits.SCALE_IS_LOCAL, CALLBACKS["rule"], 0)


@pytest.mark.parametrize("name", ["cut", "interval", "rule"])
def test_another_formula(name: str) -> None:
    pipe = edits.with_loop(harness.build("text2img"), *edits.ANOTHER_FORMULA)
    refused(pipe, CALLBACKS[name](), r"was not seen to be u \+ g \* \(c - u\)")


def of_zoo(title: str) -> tuple[Any, dict[str, Any]]:
    """A pipeline of the zoo's, and what to call it with."""
    fx, entry = ways.framework(NAME), ways.all_entries(NAME)[title]
    fx.seed()
    pipe = entry.build(fx)
    return pipe, entry.arguments(fx, pipe, Request(steps=4))


@pytest.mark.parametrize("name", ["cut", "interval", "scale", "schedule", "rule"])
def test_a_third_part(name: str) -> None:
    """Perturbed attention has a scale of its own, which is no part of guidance's."""
    found = []
    for changes in ((), edits.THE_SAME):
        pipe, arguments = of_zoo("StableDiffusionPAGPipeline")
        if changes:
            edits.with_loop(pipe, *changes)
        callbacks = bind(pipe, CALLBACKS[name]())
        found.append(harness.backend.ops.to_numpy(pipe(**arguments, **callbacks)[0]))
    np.testing.assert_allclose(found[1], found[0], rtol=0, atol=1e-4 * found[0].std())


def test_a_third_part_behind_blocks_in_another_order() -> None:
    """Without perturbed attention in this run, only two parts are there."""
    pipe, arguments = of_zoo("StableDiffusionPAGPipeline")
    edits.with_loop(pipe, edits.BLOCKS_SWAPPED[1])
    with pytest.raises(UnsupportedPipelineError, match=r"part 0 .* is the conditional one"):
        pipe(**{**arguments, "pag_scale": 0.0}, **bind(pipe, CALLBACKS["cut"]()))


def refused_of_zoo(title: str, changes: Any, callback: Any, match: str) -> None:
    pipe, arguments = of_zoo(title)
    edits.with_loop(pipe, *changes)
    with pytest.raises(UnsupportedPipelineError, match=match):
        pipe(**arguments, **bind(pipe, callback))


@pytest.mark.parametrize("name", ["cut", "interval", "scale", "rule"])
def test_calls_swapped(name: str) -> None:
    match = "part 1 of what its transformer predicts is the conditional one"
    refused_of_zoo("FluxPipeline", edits.CALLS_SWAPPED, CALLBACKS[name](), match)


@pytest.mark.parametrize("name", ["cut", "interval"])
def test_a_switch_that_is_read_once(name: str) -> None:
    match = "2 times in a step with guidance switched off"
    refused_of_zoo("WanPipeline", edits.SWITCH_IS_LOCAL, CALLBACKS[name](), match)


#: What is not seen of known loops, and what the error says of it.
UNSEEN = {"LuminaPipeline": "was not seen to be u + g"}


def seen_classes() -> list[str]:
    """One of each way; on MindSpore, where runs take long, one of each way of calling the model,
    and what is refused: the looking is done by code that knows no framework."""
    chosen = ways.chosen(NAME)
    called: dict[str, str] = {}
    for title in chosen:
        facts = facts_named(ways.all_entries(NAME)[title].name)
        assert facts is not None
        called.setdefault(facts.cfg, title)
    few = [title for title in chosen if title in UNSEEN or title in called.values()]
    return on(torch=chosen, mindspore=few)


@pytest.mark.parametrize("title", seen_classes())
def test_what_is_seen_agrees_with_what_is_known(title: str) -> None:
    """Each way of guiding, as if nobody knew the loop; all classes are in docs/observed.md."""
    entry = ways.all_entries(NAME)[title]
    case = next(case for case in ("two prompts", *CASES) if case not in entry.impossible)
    pipe, _ = of_zoo(title)
    found = observed.measure(entry, ways.framework(NAME), pipe, CASES[case])
    for part in (found, SimpleNamespace(**found.first or {})):
        expected = "refused" if title in UNSEEN else "exact"
        assert (part.verdict, UNSEEN.get(title, "") in part.why) == (expected, True)
